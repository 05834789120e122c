"""The cloud and the edge as server processes, on ports that the system chooses."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.servers.processes import ServerProcess, Variables
from shared.colocation import COLOCATED_CLOUD_ENV, COLOCATED_EDGE_ENV

BENCH_SETTINGS = {
    "cloud_teacher": {"LOG_LEVEL": "warning", "COALESCE": "off"},  # a repeated request is measured twice
    "edge_student": {"LOG_LEVEL": "warning", "API_KEYS": ""},  # no key is required, even if the environment has one
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


def service(module: str, settings: Variables, folder: Path, name: str) -> ServerProcess:
    """Return the process of a service, not started. Settings have their names without the prefix, in capitals."""
    prefix = "GKT_CLOUD_" if module.startswith("cloud_teacher") else "GKT_EDGE_"
    variables = {prefix + key: value for key, value in {"HOST": "127.0.0.1", **settings}.items()}
    return ServerProcess(name, [sys.executable, "-m", module], folder, variables, prefix)


@contextmanager
def listening(
    module: str, settings: Variables, *, start_s: float, variables: Variables | None = None
) -> Iterator[ServerProcess]:
    """Run a service. It listens, but may not be ready yet. `variables` have their full names."""
    package = module.split(".", 1)[0]
    with tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder:
        name = "cloud" if package == "cloud_teacher" else "edge"
        process = service(module, {**BENCH_SETTINGS[package], **settings}, Path(folder), name)
        process.variables |= variables or {}
        try:
            process.start()
            process.await_port(start_s)
            yield process
        finally:
            process.stop()


@contextmanager
def lone_edge(
    student: str, settings: Variables, *, start_s: float, variables: Variables | None = None
) -> Iterator[ServerProcess]:
    """Run an edge, which needs no cloud. It is ready."""
    with listening("edge_student", {"MODEL": student, **settings}, start_s=start_s, variables=variables) as edge:
        edge.await_ready(start_s)
        yield edge


@contextmanager
def edge_of(cloud_url: str, key: str | None, student: str, *, threads: int, start_s: float) -> Iterator[ServerProcess]:
    """Run an edge of a cloud on the same machine. It is ready."""
    settings = {"CLOUD_URL": cloud_url, "THREADS": str(threads), "CONTEXT_TOKENS": "4096"}
    settings |= {"CLOUD_KEY": key} if key else {}
    with lone_edge(student, settings, start_s=start_s, variables=COLOCATED_EDGE_ENV) as edge:
        yield edge


@contextmanager
def ready_pair(teacher: str, student: str, *, threads: int, start_s: float) -> Iterator[ServicePair]:
    """Run a cloud and an edge, both ready. `start_s` is for both: the first start downloads and converts models."""
    key = secrets.token_urlsafe(16)
    until = time.monotonic() + start_s
    settings = {"MODEL": teacher, "KEYS": key}
    with (
        listening("cloud_teacher", settings, start_s=start_s, variables=COLOCATED_CLOUD_ENV) as cloud,
        edge_of(cloud.url, key, student, threads=threads, start_s=start_s) as edge,
    ):
        cloud.await_ready(max(0.0, until - time.monotonic()))
        yield ServicePair(cloud.url, key, edge.url, edge.pid, teacher, student)
