"""vLLM's own server over the same model and settings as our cloud, as a process of its own: what the cloud is compared with."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.loadgen.apis import Chat, GuidanceApi, Server
from evaluation.servers.services import await_ready, cloud, free_port, other_server


@dataclass(frozen=True)
class Engine:
    """What both are given: a model by our name for it, and as a folder; the longest context; streams at once."""

    model: str
    folder: str
    dtype: str
    max_model_len: int
    streams: int
    environment: Mapping[str, str]
    options: tuple[str, ...]
    """Of `vllm serve`, for what our cloud chooses by itself on this kind of machine."""


@contextmanager
def our_cloud(engine: Engine, *, start_s: float, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Our cloud, ready."""
    key = secrets.token_urlsafe(16)
    chosen = {
        "DTYPE": engine.dtype,
        "MAX_MODEL_LEN": str(engine.max_model_len),
        "MAX_PROMPT_TOKENS": str(engine.max_model_len // 2),
        "MAX_RUNNING": str(engine.streams),
        "MAX_GUIDANCE_TOKENS": str(engine.max_model_len // 2),
        **(settings or {}),
    }
    until = time.monotonic() + start_s
    with (
        tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder,
        cloud(
            engine.model, key, folder=Path(folder), start_s=start_s, settings=chosen, environment=engine.environment
        ) as (service, url),
    ):
        await_ready(url, until, service)
        yield Server("cloud", url, api=GuidanceApi(), key=key)


@contextmanager
def vllm_serve(engine: Engine, *, start_s: float) -> Iterator[Server]:
    """`vllm serve`, ready. Raises NotMeasured."""
    port = free_port()
    # The module that `vllm serve` runs: the command itself asks for the version of a package that vLLM's build for CPUs is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", engine.folder]
    command += ["--served-model-name", engine.model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", engine.dtype, "--max-model-len", str(engine.max_model_len)]
    command += ["--max-num-seqs", str(engine.streams), "--disable-uvicorn-access-log", *engine.options]
    with other_server("vllm serve", command, port, engine.environment, ready="/health", start_s=start_s) as url:
        yield Server("vllm serve", url, {"model": engine.model}, api=Chat())
