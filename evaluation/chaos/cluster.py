"""The services under test: a cloud, edges, and the wide-area link between them, each a process of its own."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from evaluation.servers.processes import ServerProcess, Variables
from evaluation.servers.services import service

BREAKER_OPEN_S = 2.0
EDGE_SETTINGS = {
    # Short deadlines, so that a run reaches many of them.
    "CONNECT_DEADLINE_S": "1",
    "FIRST_TOKEN_DEADLINE_S": "2",
    "NEXT_TOKEN_DEADLINE_S": "1",
    "BREAKER_FAILURES": "3",
    "BREAKER_OPEN_S": str(BREAKER_OPEN_S),
    "TOKEN_MS": "8",
    "API_KEYS": "",
    "SHUTDOWN_GRACE_S": "1",
    "MAX_QUEUE": "256",
}


@dataclass(frozen=True)
class ClusterModels:
    """Names of models. None is a scripted model (`shared.echo_text`)."""

    teacher: str | None
    students: Mapping[str, str | None]
    """Models of the edges by their names."""


@dataclass(frozen=True)
class Cluster:
    """All services, ready."""

    cloud: ServerProcess
    edges: Mapping[str, ServerProcess]
    control_url: str
    start_s: float
    """Seconds that a restart may take: the engine of a real teacher needs a minute on a busy machine."""

    @property
    def nodes(self) -> dict[str, ServerProcess]:
        return {self.cloud.name: self.cloud, **self.edges}

    def restart(self, node: ServerProcess) -> None:
        node.start()
        node.await_port(self.start_s)
        node.await_ready(self.start_s)


@contextmanager
def cluster(
    models: ClusterModels,
    folder: Path,
    *,
    start_s: float,
    variables: Mapping[str, Variables],
) -> Iterator[Cluster]:
    """Run all services. `variables` are additional ones of services. Raise NotMeasured."""
    key = secrets.token_urlsafe(16)
    started: list[ServerProcess] = []
    until = time.monotonic() + start_s

    def start(node: ServerProcess) -> ServerProcess:
        node.variables |= variables.get(node.name, {})
        started.append(node)
        node.start()
        node.await_port(start_s)
        return node

    try:
        cloud = start(_cloud(models.teacher, key, folder))
        wan = start(_wan(list(models.students), cloud, folder))
        links = httpx.get(f"{wan.url}/v1/links", trust_env=False).raise_for_status().json()["links"]
        addresses = {link["name"]: link["listens"] for link in links}
        edges = {
            name: start(_edge(name, model, key, addresses[name], folder)) for name, model in models.students.items()
        }
        for node in (cloud, *edges.values()):
            node.await_ready(max(0.0, until - time.monotonic()))
        yield Cluster(cloud, edges, wan.url, start_s)
    finally:
        for node in reversed(started):
            node.stop()


def _cloud(model: str | None, key: str, folder: Path) -> ServerProcess:
    replay = folder / "replay.sqlite"
    replay.unlink(missing_ok=True)  # another run may have left it
    settings = {"KEYS": key, "MAX_RUNNING": "64", "REPLAY_FILE": str(replay), "SHUTDOWN_GRACE_S": "1"}
    if model:
        return service("cloud_teacher", settings | {"MODEL": model}, folder, "cloud")
    settings |= {"MAX_MODEL_LEN": "100000", "MAX_PROMPT_TOKENS": "90000", "TOKEN_MS": "15"}
    return service("cloud_teacher.echo", settings, folder, "cloud")


def _edge(name: str, model: str | None, key: str, link: str, folder: Path) -> ServerProcess:
    settings = {"CLOUD_URL": f"http://{link}", "CLOUD_KEY": key, **EDGE_SETTINGS}
    if model is None:
        settings |= {"CONTEXT_TOKENS": "100000", "MAX_SEQUENCES": "128"}
        return service("edge_student.echo", settings, folder, name)
    # One thread: several that wait for each other suffer most on a machine with other load.
    settings |= {"MODEL": model, "CONTEXT_TOKENS": "2048", "KV_CACHE_TOKENS": "16384", "THREADS": "1"}
    return service("edge_student", settings, folder, name)


def _wan(edges: list[str], cloud: ServerProcess, folder: Path) -> ServerProcess:
    links = [option for edge in edges for option in ("--link", f"{edge}=0")]
    command = [sys.executable, "-m", "gkt", "wan", "serve", *links, "--to", cloud.url.removeprefix("http://")]
    command += ["--control", "0", "--port-file", str(folder / "wan.port")]
    return ServerProcess("wan", command, folder, {})
