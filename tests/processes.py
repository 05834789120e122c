"""Services as real processes, at ports that the system chooses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
POLL_S = 0.02


class Process:
    """`python -m MODULE` in a session of its own, so that every process it starts can be found, orphans too."""

    def __init__(self, module: str, environment: Mapping[str, str], directory: Path, *arguments: str) -> None:
        prefix = "GKT_EDGE_" if module == "edge_student" else "GKT_CLOUD_"
        self.module = module
        self.log = directory / f"{module}.log"
        self._port_file = directory / "port"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("GKT_CLOUD", "GKT_EDGE"))
        }
        settings = {f"{prefix}PORT": "0", f"{prefix}PORT_FILE": str(self._port_file)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env={**inherited, **settings, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def url(self, within_s: float = 60) -> str:
        """Wait until the service listens, and return its URL."""
        self._wait(self._port_file.exists, within_s, "listening")
        return f"http://127.0.0.1:{self._port_file.read_text().strip()}"

    def wait_until_ready(self, within_s: float = 240) -> None:
        url = self.url()
        self._wait(lambda: httpx.get(f"{url}/ready").status_code == 200, within_s, "ready")

    def wait_for_child(self, name: str, within_s: float = 120) -> int:
        """Wait for a process in the session with `name` in its title, and return its id."""
        self._wait(lambda: any(name in title for title in self.family().values()), within_s, f"with a {name}")
        return next(pid for pid, title in self.family().items() if name in title)

    def family(self) -> dict[int, str]:
        """Return the live processes of the session with their titles."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                title = (directory / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                found[int(directory.name)] = title
        return found

    def stop(self, signum: int = signal.SIGTERM, *, group: bool = False, within_s: float = 60) -> int:
        """Signal the process, or its whole group as a terminal does, and return its exit status."""
        if group:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)
        return self.wait(within_s)

    def wait(self, within_s: float = 60) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(within_s)

    def orphans(self, within_s: float = 5) -> dict[int, str]:
        """Return the processes that are left in the session a moment after the service's end."""
        deadline = time.monotonic() + within_s
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return left

    def kill(self) -> None:
        """Kill every process of the session."""
        for pid in [self.process.pid, *self.family()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def _wait(self, condition: object, within_s: float, what: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + within_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
                raise RuntimeError(f"{self.module} is not {what} (status {self.process.poll()}):\n{end}")
            time.sleep(POLL_S)
