"""The cloud and the edge as server processes, on ports that the system chooses."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.servers.processes import ServerProcess
from shared.colocation import NEIGHBOURLY_CLOUD, NEIGHBOURLY_EDGE

MODULES = {"cloud": "cloud_teacher", "edge": "edge_student"}
BENCH_SETTINGS = {
    "cloud": {"LOG_LEVEL": "warning", "COALESCE": "off"},  # a repeated request is measured twice
    "edge": {"LOG_LEVEL": "warning", "API_KEYS": ""},  # no key is required, even if the environment has one
}


@dataclass(frozen=True)
class ServicePair:
    """A cloud and an edge that are ready. The edge's process id is known if it runs on this machine."""

    cloud_url: str
    cloud_key: str | None
    edge_url: str
    edge_pid: int | None
    teacher: str
    student: str


def service(
    side: str,
    settings: Mapping[str, str],
    folder: Path,
    *,
    name: str | None = None,
    module: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServerProcess:
    """Return the process of a "cloud" or an "edge", not started. Settings have their names without the prefix, in capitals."""
    prefix = f"GKT_{side.upper()}_"
    variables = {prefix + key: value for key, value in {"HOST": "127.0.0.1", **settings}.items()}
    command = [sys.executable, "-m", module or MODULES[side]]
    return ServerProcess(name or side, command, folder, {**(environment or {}), **variables}, prefix=prefix)


@contextmanager
def listening(
    side: str,
    settings: Mapping[str, str],
    *,
    start_s: float,
    module: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Run a service. It listens, but may not be ready yet."""
    with tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder:
        settings = {**BENCH_SETTINGS[side], **settings}
        process = service(side, settings, Path(folder), module=module, environment=environment)
        try:
            process.start()
            process.await_port(start_s)
            yield process
        finally:
            process.stop()


@contextmanager
def ready_edge(
    student: str,
    settings: Mapping[str, str],
    *,
    start_s: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Run an edge. It is ready."""
    with listening("edge", {"MODEL": student, **settings}, start_s=start_s, environment=environment) as edge:
        edge.await_ready(start_s)
        yield edge


def edge_settings(cloud_url: str, key: str | None, threads: int) -> dict[str, str]:
    """Return the settings of an edge that is measured with a cloud."""
    settings = {"CLOUD_URL": cloud_url, "THREADS": str(threads), "CONTEXT_TOKENS": "4096"}
    return settings | ({"CLOUD_KEY": key} if key else {})


@contextmanager
def ready_pair(teacher: str, student: str, *, threads: int, start_s: float) -> Iterator[ServicePair]:
    """Run a cloud and an edge, both ready. `start_s` is for both: the first start downloads and converts models."""
    key = secrets.token_urlsafe(16)
    until = time.monotonic() + start_s
    cloud_settings = {"MODEL": teacher, "KEYS": key}
    with listening("cloud", cloud_settings, start_s=start_s, environment=NEIGHBOURLY_CLOUD) as cloud:
        settings = edge_settings(cloud.url, key, threads)
        with ready_edge(student, settings, start_s=start_s, environment=NEIGHBOURLY_EDGE) as edge:
            cloud.await_ready(max(0.0, until - time.monotonic()))
            yield ServicePair(cloud.url, key, edge.url, edge.pid, teacher, student)
