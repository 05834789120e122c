"""`gkt` as a user runs it: a process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PLAIN = {"COLUMNS": "200", "TERM": "dumb"}


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


async def gkt(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Outcome:
    """Run `gkt` to its end, in a folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gkt",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **PLAIN, **(environment or {})},
        cwd=folder,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())
