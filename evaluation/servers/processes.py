"""Server processes: each in a process group of its own, which does not outlive the measurement."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import httpx
from pydantic import ValidationError

from evaluation.figures import NotMeasured
from shared.protocol.guidance import Health

STOP_GRACE_S = 30.0
LOG_TAIL_BYTES = 2000
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
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise NotMeasured(f"the {self.name} is not running")
        return self._process.pid

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
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # not a new session: on Linux niceness may count only within one
            )

    def check(self) -> None:
        """Raise NotMeasured with the end of the log if the process has ended."""
        if self._process and (status := self._process.poll()) is not None:
            tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            raise NotMeasured(f"the {self.name} ended with status {status}. The end of its log:\n{tail}")

    def await_port(self, within_s: float) -> None:
        """Wait until the server listens, and read its port. Raise NotMeasured."""
        self._wait(self.port_file.exists, within_s, "does not listen")
        self.port = int(self.port_file.read_text())

    def await_ready(self, within_s: float, path: str = "/ready") -> None:
        """Wait until a path answers 200. Raise NotMeasured."""
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as http:
            self._wait(lambda: _answers(http, path), within_s, "is not ready")

    def _wait(self, condition: Callable[[], bool], within_s: float, problem: str) -> None:
        until = time.monotonic() + within_s
        while not condition():
            self.check()
            if time.monotonic() > until:
                raise NotMeasured(f"the {self.name} {problem} within {within_s:.0f} s")
            time.sleep(POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def limit_file_size(self, limit: int) -> None:
        """Set the size that the server's files may grow to (`resource.RLIM_INFINITY`: any), if it listens."""
        if self._process and self.port_file.exists():
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Stop the group: SIGTERM, and after a grace period SIGKILL."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_GRACE_S)
        self.signal(signal.SIGKILL)
        self._process.wait()
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
