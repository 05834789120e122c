"""Drives `bare_llama`, the loop that the edge's decoding is compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.figures import NotMeasured

CONTEXT_TOKENS = 4096
LIMIT_S = 300.0


class BareRun(BaseModel):
    """What the bare loop wrote, and its tokens per second from the first to the last."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str
    prompt_tokens: int
    rate: float = Field(gt=0)


class _Request(BaseModel):
    question: str
    max_tokens: int


class BareLlama:
    """A process with a bare loop: it computes while `generate` waits, and sleeps otherwise."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        if self._line() != "ready\n":
            raise NotMeasured("the bare llama.cpp loop does not start")

    def generate(self, question: str, max_tokens: int) -> BareRun:
        """Write exactly `max_tokens`, greedily. Raises NotMeasured."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened with pipes
        timer = threading.Timer(LIMIT_S, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(_Request(question=question, max_tokens=max_tokens).model_dump_json() + "\n")
            self._process.stdin.flush()
            return BareRun.model_validate_json(self._line())
        except (OSError, ValidationError) as error:
            raise NotMeasured(f"the bare llama.cpp loop failed, or took more than {LIMIT_S:g} s: {error}") from error
        finally:
            timer.cancel()

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout.readline()


@contextmanager
def bare_llama(path: Path, *, threads: int, spin_count: int | None) -> Iterator[BareLlama]:
    """The loop over a GGUF file.

    `spin_count` is how long OpenMP's threads spin before they sleep; None leaves it the library's way.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    }
    if spin_count is not None:
        environment["GOMP_SPINCOUNT"] = str(spin_count)
    command = [
        sys.executable,
        "-m",
        "evaluation.servers.llama_loop_process",
        str(path),
        str(threads),
        str(CONTEXT_TOKENS),
    ]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield BareLlama(process)
    finally:
        process.kill()
        with process:
            pass
