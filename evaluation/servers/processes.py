"""Server processes of a measurement."""

from __future__ import annotations

import os
import resource
import signal
import socket
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

POLL_S = 0.02


class ServerProcess:
    """A server on this machine. It can be killed, paused, and started again on its port."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        port: int = 0,
        prefix: str | None = None,
    ) -> None:
        """Logs go to `folder`.

        A server with the port 0 chooses one and writes it to `port_file`. `prefix` is that of the variables with both.
        """
        self.name = name
        self.port = port
        self.port_file = folder / f"{name}.port"
        self.environment = dict(environment)
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
    def _running(self) -> ChildProcess:
        if self._process is None:
            raise NotMeasured(f"the {self.name} is not running")
        return self._process

    @property
    def log(self) -> Path:
        return self._folder / f"{self.name}-{self._starts}.log"

    def start(self) -> None:
        self._starts += 1
        self.port_file.unlink(missing_ok=True)
        if self._prefix:
            self.environment |= {
                f"{self._prefix}PORT": str(self.port),
                f"{self._prefix}PORT_FILE": str(self.port_file),
            }
        self._process = ChildProcess(self.name, self._command, env={**os.environ, **self.environment}, log=self.log)

    def await_port(self, within_s: float) -> None:
        """Wait until the server listens, and read its port. Raise ProcessFailed."""
        self.port = self._running.port(self.port_file, within_s)

    def await_ready(self, within_s: float, path: str = "/ready") -> None:
        """Wait until a path answers 200. Raise ProcessFailed."""
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as http:
            self._running.wait_until(lambda: _answers(http, path), within_s, what="ready")

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


def _answers(http: httpx.Client, path: str) -> bool:
    with suppress(httpx.TransportError):
        return http.get(path).status_code == httpx.codes.OK
    return False


def model_at(url: str, within_s: float) -> str:
    """Wait until a running cloud or edge is ready. Return the name of its model. Raise NotMeasured."""
    until = time.monotonic() + within_s
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as http:
        while not _answers(http, "/ready"):
            if time.monotonic() > until:
                raise NotMeasured(f"{url} is not ready within {within_s:.0f} s")
            time.sleep(POLL_S)
        try:
            model = Health.model_validate_json(http.get("/ready").content).model
        except ValidationError:
            model = None
    if model is None:
        raise NotMeasured(f"{url} reports no model; a cloud or an edge of gkt is expected there")
    return model


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def gkt_output(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a `gkt` command and return the last line of its output. Raise NotMeasured if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "gkt", *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
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
