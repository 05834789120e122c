"""Run `gkt` to its end: in this process, or as a process of its own where signals or processes are the subject."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gkt.__main__ import main

PLAIN = {"COLUMNS": "200", "TERM": "dumb"}


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


async def gkt(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Outcome:
    """Run `gkt` in a thread of this process, beside the servers of the test, in a folder."""
    return await asyncio.to_thread(_run, arguments, stdin, {**PLAIN, **(environment or {})}, folder)


def _run(arguments: Sequence[str], stdin: bytes, environment: Mapping[str, str], folder: Path | None) -> Outcome:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for name in ("out", "err")}
    status: object = 0
    with pytest.MonkeyPatch.context() as patch, own_environment(environment), chdir(folder or Path.cwd()):
        patch.setattr(sys, "argv", ["gkt", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        patch.setattr(sys, "stdout", streams["out"])
        patch.setattr(sys, "stderr", streams["err"])
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    assert isinstance(status, int)
    out, err = (stream.buffer.getvalue().decode() for stream in streams.values())
    return Outcome(status, out, err)


@contextmanager
def own_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Change the environment, and restore it: some commands give their options to a service as variables."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def gkt_process(*arguments: str, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run `gkt` as a process of its own, as a user does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gkt", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **PLAIN, **(environment or {})},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())
