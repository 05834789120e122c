"""Services as real processes, at ports that the system chooses."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from shared.child_process import ChildProcess

ROOT = Path(__file__).parents[1]
POLL_S = 0.02


class Process(ChildProcess):
    """A `python -m MODULE` in a session of its own, so that every process it starts can be found, orphans too."""

    def __init__(self, module: str, environment: Mapping[str, str], directory: Path, *arguments: str) -> None:
        prefix = "GKT_EDGE_" if module == "edge_student" else "GKT_CLOUD_"
        self._port_file = directory / "port"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("GKT_CLOUD", "GKT_EDGE"))
        }
        settings = {f"{prefix}PORT": "0", f"{prefix}PORT_FILE": str(self._port_file)}
        super().__init__(
            module,
            [sys.executable, "-m", module, *arguments],
            log=directory / f"{module}.log",
            env={**inherited, **settings, **environment},
            cwd=ROOT,
            new_session=True,
        )

    def url(self, within_s: float = 60) -> str:
        """Return the URL it listens at, when it does."""
        return f"http://127.0.0.1:{self.port(self._port_file, within_s)}"

    def wait_until_ready(self, within_s: float = 240) -> None:
        url = self.url()
        self.wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200, within_s, what="ready")

    def wait_for_child(self, name: str, within_s: float = 120) -> int:
        """Return the id of the first process in its session with `name` in its title."""
        self.wait_until(
            lambda: any(name in title for title in self.family().values()), within_s, what=f"the parent of a {name}"
        )
        return next(pid for pid, title in self.family().items() if name in title)

    def family(self) -> dict[int, str]:
        """Return every live process of its session, with its title."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                title = (directory / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if int(fields[3]) == self.pid and fields[0] != "Z":
                found[int(directory.name)] = title
        return found

    def end(self, signum: int = signal.SIGTERM, *, group: bool = False, within_s: float = 60) -> int:
        """Signal it, or its whole group as a terminal does, and wait for the end. Nothing is killed. Returns the status."""
        self.signal(signum, group=group)
        return self.wait(within_s)

    def orphans(self, within_s: float = 5) -> dict[int, str]:
        """Return what is left of its session a moment after its end. Should be nothing."""
        deadline = time.monotonic() + within_s
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return left

    def kill(self) -> int:
        """Kill the whole session, at the end of a test."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return super().kill()
