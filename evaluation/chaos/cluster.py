"""The services, each a process of its own on a port of its own, that can be killed, paused and started again."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from evaluation.figures import NotMeasured
from evaluation.servers.services import Service, await_ready

POLL_S = 0.02


class Member:
    """One service. Its port is the system's choice at first, and the same whenever it starts again."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        prefix: str = "GKT_WAN_",
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are the service's, without the prefix of their names."""
        self.name = name
        self.starts = 0
        self.listening = False
        self._command = [sys.executable, "-m", *command]
        self._settings = dict(settings or {})
        self._environment = dict(environment or {})
        self._prefix = prefix
        self._folder = folder
        self._port_file = folder / f"{name}.port"
        self._port = 0
        self._service: Service | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        if self._service is None:
            raise NotMeasured(f"the {self.name} does not run")
        return self._service.pid

    @property
    def log(self) -> Path:
        return self._folder / f"{self.name}-{self.starts}.log"

    def start(self, within_s: float) -> None:
        """Returns once it listens. Raises NotMeasured where it does not in time."""
        self.starts += 1
        self._port_file.unlink(missing_ok=True)
        settings = {"PORT": str(self._port), "PORT_FILE": str(self._port_file), **self._settings}
        environment = {**self._environment, **{self._prefix + name: value for name, value in settings.items()}}
        self._service = Service(f"{self.name}-{self.starts}", self._command, environment, self._folder)
        until = time.monotonic() + within_s
        while not self._port_file.exists():
            self._service.check()
            if time.monotonic() > until:
                raise NotMeasured(f"the {self.name} does not listen in time")
            time.sleep(POLL_S)
        self._port = int(self._port_file.read_text())
        self.listening = True

    def await_ready(self, within_s: float) -> None:
        await_ready(self.url, time.monotonic() + within_s, self._service)

    def kill(self) -> None:
        """SIGKILL, for all of its processes, and it is gone."""
        os.killpg(self.pid, signal.SIGKILL)
        self.stop()

    def pause(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def fill_disk(self) -> None:
        """No file of its takes a byte more, neither its log nor a database. One that is about to start is spared."""
        if not self.listening:
            return
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def empty_disk(self) -> None:
        """One that has started since has all the room there is."""
        if not self.listening:
            return
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def stop(self) -> None:
        self.listening = False
        if self._service:
            self._service.stop()
            self._service = None


@dataclass(frozen=True)
class Models:
    """Names of models; None is `shared.echo_text`, which has none."""

    teacher: str | None
    students: Mapping[str, str | None]
    """Of each edge."""


@dataclass(frozen=True)
class Pace:
    """Deadlines of the edges, short so that a run meets many of them."""

    connect_s: float = 1.0
    first_token_s: float = 2.0
    next_token_s: float = 1.0
    breaker_failures: int = 3
    breaker_open_s: float = 2.0
    teacher_token_ms: float = 15.0
    student_token_ms: float = 8.0

    @property
    def edge_settings(self) -> dict[str, str]:
        return {
            "CONNECT_DEADLINE_S": str(self.connect_s),
            "FIRST_TOKEN_DEADLINE_S": str(self.first_token_s),
            "NEXT_TOKEN_DEADLINE_S": str(self.next_token_s),
            "BREAKER_FAILURES": str(self.breaker_failures),
            "BREAKER_OPEN_S": str(self.breaker_open_s),
            "TOKEN_MS": str(self.student_token_ms),
        }


@dataclass(frozen=True)
class Town:
    """A cloud, edges, and the wide-area link between them, all ready."""

    cloud: Member
    edges: Mapping[str, Member]
    control_url: str
    pace: Pace
    start_s: float
    """What a service that is started again may take: a real teacher's engine needs a minute where others run beside it."""

    def member(self, name: str) -> Member:
        return self.cloud if name == self.cloud.name else self.edges[name]

    @property
    def members(self) -> list[Member]:
        return [self.cloud, *self.edges.values()]


@contextmanager
def town(
    models: Models, pace: Pace, folder: Path, *, start_s: float, environments: Mapping[str, Mapping[str, str]]
) -> Iterator[Town]:
    """All of it, started and in the end stopped. `environments` are what services get besides. Raises NotMeasured."""
    key = secrets.token_urlsafe(16)
    cloud = _cloud(models.teacher, key, pace, folder, environments.get("cloud", {}))
    started: list[Member] = []
    until = time.monotonic() + start_s
    try:
        _start(cloud, started, start_s)
        wan = _wan(list(models.students), cloud.url, folder)
        _start(wan, started, start_s)
        links = httpx.get(f"{wan.url}/v1/links", trust_env=False).raise_for_status().json()["links"]
        where = {link["name"]: link["listens"] for link in links}
        edges = {
            name: _edge(
                name,
                model,
                folder,
                link=where[name],
                key=key,
                pace=pace,
                environment=environments.get(name, {}),
            )
            for name, model in models.students.items()
        }
        for edge in edges.values():
            _start(edge, started, start_s)
        for member in (cloud, *edges.values()):
            member.await_ready(max(0.0, until - time.monotonic()))
        yield Town(cloud, edges, wan.url, pace, start_s)
    finally:
        for member in reversed(started):
            member.stop()


def _start(member: Member, started: list[Member], within_s: float) -> None:
    started.append(member)
    member.start(within_s)


def _cloud(model: str | None, key: str, pace: Pace, folder: Path, environment: Mapping[str, str]) -> Member:
    settings = {
        "HOST": "127.0.0.1",
        "KEYS": key,
        "MAX_RUNNING": "64",
        "REPLAY_FILE": str(folder / "replay.sqlite"),
        "SHUTDOWN_GRACE_S": "1",
    }
    (folder / "replay.sqlite").unlink(missing_ok=True)  # of another run
    if model is None:
        settings |= {"MAX_MODEL_LEN": "100000", "MAX_PROMPT_TOKENS": "90000", "TOKEN_MS": str(pace.teacher_token_ms)}
    else:
        settings |= {"MODEL": model}
    command = ["cloud_teacher" if model else "cloud_teacher.echo"]
    return Member("cloud", command, folder, prefix="GKT_CLOUD_", settings=settings, environment=environment)


def _edge(
    name: str,
    model: str | None,
    folder: Path,
    *,
    link: str,
    key: str,
    pace: Pace,
    environment: Mapping[str, str],
) -> Member:
    settings = {
        "HOST": "127.0.0.1",
        "CLOUD_URL": f"http://{link}",
        "CLOUD_KEY": key,
        "API_KEYS": "",
        "SHUTDOWN_GRACE_S": "1",
        **pace.edge_settings,
    }
    if model is None:
        settings |= {"CONTEXT_TOKENS": "100000", "MAX_SEQUENCES": "128", "MAX_QUEUE": "256"}
    else:
        settings |= {"MODEL": model, "CONTEXT_TOKENS": "2048", "KV_CACHE_TOKENS": "16384", "MAX_QUEUE": "256"}
        settings["THREADS"] = "1"  # threads that wait for each other suffer most on a machine that others use
    command = ["edge_student" if model else "edge_student.echo"]
    return Member(name, command, folder, prefix="GKT_EDGE_", settings=settings, environment=environment)


def _wan(names: Sequence[str], cloud_url: str, folder: Path) -> Member:
    links = [option for name in names for option in ("--link", f"{name}=0")]
    port_file = str(folder / "wan.port")
    command = ["gkt", "wan", "serve", *links, "--to", cloud_url.removeprefix("http://"), "--control", "0"]
    return Member("wan", [*command, "--port-file", port_file], folder)
