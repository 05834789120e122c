"""Child processes that never outlive their parent, and are stopped together with everything they started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shared.errors import GktError

POLL_S = 0.05
KILL_GRACE_S = 30.0
LOG_TAIL_BYTES = 20_000

_PR_SET_PDEATHSIG = 1


class ProcessFailed(GktError):
    """A child ended, or was not ready in time. The message holds the end of its log."""

    code = "process_failed"


class ChildProcess:
    """A process that leads a group of its own and writes its output to a log file.

    Ctrl-C in a terminal reaches only the parent, which then stops its children in order. The group stays in the parent's
    session unless `new_session`: where Linux schedules sessions against each other (autogroup), niceness counts within one.
    On Linux the kernel sends the child SIGTERM if the parent is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        new_session: bool = False,
    ) -> None:
        """Start `command`. Raises OSError."""
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=None if new_session else 0,
                start_new_session=new_session,
                preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - it calls nothing but prctl
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while the process runs."""
        return self._process.poll()

    def wait(self, within_s: float | None = None) -> int:
        """Wait for the end and return the exit status. Raises subprocess.TimeoutExpired."""
        return self._process.wait(within_s)

    def wait_until(self, condition: Callable[[], bool], within_s: float, *, what: str) -> None:
        """Poll `condition` until it holds. Raises ProcessFailed if the process ends first, or at the deadline."""
        deadline = time.monotonic() + within_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"the {self.name} is not {what} after {within_s:g} s. Its log ends:\n{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def port(self, port_file: Path, within_s: float) -> int:
        """Return the port that the process writes to `port_file` when it listens. Raises ProcessFailed."""
        self.wait_until(port_file.exists, within_s, what="listening")
        return int(port_file.read_text())

    def check(self) -> None:
        """Raise ProcessFailed if the process has ended."""
        if self.status is not None:
            raise ProcessFailed(f"the {self.name} ended with status {self.status}. Its log ends:\n{self.log_tail()}")

    def signal(self, signum: int, *, group: bool = False) -> None:
        """Signal the process, or its whole group as a terminal does."""
        if group:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signum)
        else:
            self._process.send_signal(signum)

    def stop(self, grace_s: float = KILL_GRACE_S) -> int:
        """End the process: SIGTERM, then SIGKILL for the rest of the group after its end or the grace. Returns its status."""
        self.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """End the group at once and return the exit status."""
        self.signal(signal.SIGKILL, group=True)
        return self.wait()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _end_with(parent: int) -> Callable[[], None] | None:
    """Return the hook that ties a child to its parent's life. It runs in the child, before its program."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: little is safe after the fork

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(1)

    return tie
