"""Server processes of a measurement."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import httpx
from pydantic import ValidationError

from evaluation.figures import NotMeasured
from shared.child_process import ChildProcess
from shared.protocol.guidance import Health

Variables = Mapping[str, str]


class ServerProcess:
    """A server on this machine. It can be killed, paused, and started again on its port."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, variables: Variables, prefix: str = "") -> None:
        """Logs go to `folder`. `prefix` is that of the environment variables in which the server finds its port."""
        self.name = name
        self.port = 0
        self.port_file = folder / f"{name}.port"
        self.variables = dict(variables)
        self._prefix = prefix
        self._command = list(command)
        self._folder = folder
        self._starts = 0
        self._process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def log(self) -> Path:
        return self._folder / f"{self.name}-{self._starts}.log"

    @property
    def _running(self) -> ChildProcess:
        if self._process is None:
            raise NotMeasured(f"the {self.name} is not running")
        return self._process

    def start(self) -> None:
        self._starts += 1
        self.port_file.unlink(missing_ok=True)
        port = {f"{self._prefix}PORT": str(self.port), f"{self._prefix}PORT_FILE": str(self.port_file)}
        variables = {**os.environ, **self.variables, **(port if self._prefix else {})}
        self._process = ChildProcess(self.name, self._command, env=variables, log=self.log)

    def await_port(self, within_s: float) -> None:
        """Wait until the server listens and has written its port to `port_file`. Raise ProcessFailed."""
        self.port = self._running.port(self.port_file, within_s)

    def await_ready(self, within_s: float, path: str = "/ready") -> None:
        """Wait until a path answers 200. Raise ProcessFailed."""
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as http:

            def is_ready() -> bool:
                with suppress(httpx.TransportError):
                    return http.get(path).status_code == httpx.codes.OK
                return False

            self._running.wait_until(is_ready, within_s, what="ready")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the group."""
        self._running.signal(number, group=True)

    def limit_file_size(self, limit: int) -> None:
        """Set the size that the server's files may grow to (`resource.RLIM_INFINITY`: any), if it listens."""
        if self._process and self.port_file.exists():
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def kill(self) -> None:
        self._running.kill()
        self._process = None

    def stop(self) -> None:
        """Stop the server if it runs."""
        if self._process:
            self._process.stop()
            self._process = None


def model_at(url: str, within_s: float) -> str:
    """Wait until a running cloud or edge is ready. Return the name of its model. Raise NotMeasured."""
    until = time.monotonic() + within_s
    while True:
        with suppress(httpx.TransportError, ValidationError):
            response = httpx.get(f"{url}/ready", timeout=5, trust_env=False)
            model = Health.model_validate_json(response.content).model
            if response.status_code == httpx.codes.OK and model:
                return model
        if time.monotonic() > until:
            raise NotMeasured(f"no cloud or edge of gkt is ready at {url} within {within_s:g} s")
        time.sleep(0.2)


def gkt_output(*arguments: str, variables: Variables | None = None) -> str:
    """Run a `gkt` command and return the last line of its output. Raise NotMeasured if it fails."""
    command = [sys.executable, "-m", "gkt", *arguments]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout.strip():
        raise NotMeasured(f"gkt {' '.join(arguments[:2])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout.strip().splitlines()[-1]


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that context managers stop what they started."""

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
