"""Processes that `gkt up` starts, and that do not outlive it however it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gkt.terminal.sanitize import plain

_PR_SET_PDEATHSIG = 1


class Child:
    """One process in a group of its own: Ctrl-C in the terminal reaches only us, and we end it in good order.

    Not in a session of its own: where Linux schedules sessions against each other (autogroup), niceness counts within one.

    On Linux the system sends it SIGTERM if we are killed without a chance to.
    """

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path) -> Child:
        """Start a command that writes all it says to the file `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=file,
                stderr=STDOUT,
                env=env,
                process_group=0,
                preexec_fn=_tie_to(os.getpid()),
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> int:
        """Wait for its end. Returns its status, as `subprocess` has it."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """Have it end within the grace, and then nothing of its group is left: what it started may not end with it."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), grace_s)
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """End it and all of its group at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 20_000))
            return plain("\n".join(file.read().decode(errors="replace").splitlines()[-lines:]))


def _tie_to(parent: int) -> Callable[[], None] | None:
    """What a child does before it becomes its program, so that it ends with its parent."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: after the fork there should be little left to do

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it was gone before we asked
            os._exit(1)

    return tie
