"""The cloud and the edge as processes of their own, on ports that the system chooses. None outlives the measurement."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
from pydantic import ValidationError

from evaluation.figures import NotMeasured
from shared.colocation import NEIGHBOURLY_CLOUD, NEIGHBOURLY_EDGE
from shared.protocol.guidance import Health

STOP_GRACE_S = 30.0
LOG_TAIL_BYTES = 2000
OPEN = {"API_KEYS": ""}
"""Our own edges ask nobody for a key, whatever the environment says."""


@dataclass(frozen=True)
class Pair:
    """A cloud and an edge that are ready. The edge's process id is known where it runs on this machine."""

    cloud_url: str
    cloud_key: str | None
    edge_url: str
    edge_pid: int | None
    teacher: str
    student: str


class Service:
    """One service's process, the head of a process group."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # in our session: on Linux niceness may count only within one
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises NotMeasured, with the end of its log, where it runs no longer."""
        if self._process.poll() is not None:
            tail = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            raise NotMeasured(f"the {self.name} ended with status {self._process.returncode}. Its last words:\n{tail}")

    def stop(self) -> None:
        """End the group: asked first, then killed."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def cloud(
    model: str,
    key: str,
    *,
    folder: Path,
    start_s: float,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] = NEIGHBOURLY_CLOUD,
    module: str = "cloud_teacher",
) -> Iterator[tuple[Service, str]]:
    """A cloud that listens, and its URL; it is not ready yet. Settings are by their names in capitals."""
    settings = {
        "MODEL": model,
        "KEYS": key,
        "SHARE": "off",
        **(settings or {}),
    }  # what is asked twice is measured twice
    with _service("cloud", module, settings, folder=folder, start_s=start_s, environment=environment) as started:
        yield started


@contextmanager
def edge(
    model: str, cloud_url: str, key: str | None, *, threads: int, folder: Path, start_s: float
) -> Iterator[tuple[Service, str]]:
    """An edge that listens, and its URL; it is not ready yet."""
    settings = {"MODEL": model, "CLOUD_URL": cloud_url, "THREADS": str(threads), "CONTEXT_TOKENS": "4096", **OPEN}
    if key:
        settings["CLOUD_KEY"] = key
    with _service(
        "edge", "edge_student", settings, folder=folder, start_s=start_s, environment=NEIGHBOURLY_EDGE
    ) as started:
        yield started


@contextmanager
def started_pair(teacher: str, student: str, *, threads: int, start_s: float) -> Iterator[Pair]:
    """Both, ready. `start_s` is how long they may take together: the first start fetches and converts models."""
    key = secrets.token_urlsafe(16)
    until = time.monotonic() + start_s
    with (
        tempfile.TemporaryDirectory(prefix="gkt-bench-") as name,
        cloud(teacher, key, folder=Path(name), start_s=start_s) as (cloud_service, cloud_url),
        edge(student, cloud_url, key, threads=threads, folder=Path(name), start_s=start_s) as (edge_service, edge_url),
    ):
        await_ready(cloud_url, until, cloud_service)
        await_ready(edge_url, until, edge_service)
        yield Pair(cloud_url, key, edge_url, edge_service.pid, teacher, student)


@contextmanager
def started_edge(
    student: str, cloud_url: str, key: str | None, *, threads: int, start_s: float
) -> Iterator[tuple[str, int]]:
    """An edge of a cloud that runs already, ready: its URL and process id."""
    until = time.monotonic() + start_s
    with (
        tempfile.TemporaryDirectory(prefix="gkt-bench-") as name,
        edge(student, cloud_url, key, threads=threads, folder=Path(name), start_s=start_s) as (service, url),
    ):
        await_ready(url, until, service)
        yield url, service.pid


@contextmanager
def lone_edge(student: str, settings: Mapping[str, str], *, start_s: float) -> Iterator[str]:
    """An edge without any cloud, with settings by their names in capitals, ready: its URL."""
    until = time.monotonic() + start_s
    with (
        tempfile.TemporaryDirectory(prefix="gkt-bench-") as name,
        _service(
            "edge",
            "edge_student",
            {"MODEL": student, **settings, **OPEN},
            folder=Path(name),
            start_s=start_s,
            environment={},
        ) as (service, url),
    ):
        await_ready(url, until, service)
        yield url


def await_ready(url: str, until: float, service: Service | None = None) -> str:
    """Wait for `/ready`. Returns the name of the model there. Raises NotMeasured when the time is over."""
    said = "nothing"
    with httpx.Client(base_url=url, timeout=5) as http:
        while True:
            if service:
                service.check()
            with suppress(httpx.TransportError):
                response = http.get("/ready")
                said = f"{response.status_code} {response.text[:200]}"
                if response.status_code == httpx.codes.OK:
                    return _model(response.content, url)
            if time.monotonic() > until:
                raise NotMeasured(f"{url} is not ready in time; the last that it said: {said}")
            time.sleep(0.2)


def _model(body: bytes, url: str) -> str:
    try:
        model = Health.model_validate_json(body).model
    except ValidationError:
        model = None
    if model is None:
        raise NotMeasured(f"{url} does not say which model it has; is it one of ours?")
    return model


@contextmanager
def other_server(
    name: str, command: list[str], port: int, environment: Mapping[str, str], *, ready: str, start_s: float
) -> Iterator[str]:
    """A server that is none of ours, once the path `ready` answers: its URL. Raises NotMeasured."""
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + start_s
    with tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder:
        service = Service(name, command, environment, Path(folder))
        try:
            with httpx.Client(base_url=url, timeout=5) as http:
                while not _answers(http, ready):
                    service.check()
                    if time.monotonic() > until:
                        raise NotMeasured(f"the {name} is not ready in time")
                    time.sleep(0.1)
            yield url
        finally:
            service.stop()


def _answers(http: httpx.Client, path: str) -> bool:
    with suppress(httpx.TransportError):
        return http.get(path).status_code == httpx.codes.OK
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def said_by_gkt(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """The last line that a command of ours says on standard output. Raises NotMeasured where it fails."""
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
def stopped_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as an exception does: whatever was started is stopped."""

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _service(
    name: str,
    module: str,
    settings: Mapping[str, str],
    *,
    folder: Path,
    start_s: float,
    environment: Mapping[str, str],
) -> Iterator[tuple[Service, str]]:
    port_file = folder / f"{name}.port"
    settings = {"HOST": "127.0.0.1", "PORT": "0", "PORT_FILE": str(port_file), "LOG_LEVEL": "warning", **settings}
    prefix = f"GKT_{name.upper()}_"
    variables = {**environment, **{prefix + key: value for key, value in settings.items()}}
    service = Service(name, [sys.executable, "-m", module], variables, folder)
    try:
        until = time.monotonic() + start_s
        while not port_file.exists():
            service.check()
            if time.monotonic() > until:
                raise NotMeasured(f"the {name} does not listen in time")
            time.sleep(0.05)
        yield service, f"http://127.0.0.1:{int(port_file.read_text())}"
    finally:
        service.stop()
