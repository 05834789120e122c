"""A cloud and an edge as processes of this machine, with an optional link between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from cloud_teacher.config.settings import CloudSettings
from edge_student.settings import EdgeSettings
from gkt.local.preflight import free_port, local_url
from gkt.terminal.sanitize import plain
from shared.child_process import POLL_S, ChildProcess
from shared.colocation import COLOCATED_CLOUD_ENV, COLOCATED_EDGE_ENV
from shared.errors import ConfigurationError, GktError
from shared.home import home
from shared.protocol.guidance import Health
from shared.server.settings import read_settings

READY_EVERY_S = 0.25
GRACE_S = 5.0
"""Time beyond its own grace that a side may take to end."""


class SideEnded(GktError):
    """A side ended while the others were running."""

    code = "side_ended"

    def __init__(self, side: ChildProcess) -> None:
        super().__init__(f"the {side.name} ended unexpectedly; its log is {side.log}")
        self.last_words = plain(side.log_tail())


@dataclass(frozen=True)
class Service:
    """One process: its command, environment, log and URL."""

    name: str
    arguments: Sequence[str]
    """Arguments of the Python command."""
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    url: str
    grace_s: float


@dataclass(frozen=True)
class Wan:
    """The ports of a wide-area link between the edge and the cloud, on loopback."""

    link: int
    control: int

    @property
    def url(self) -> str:
        """URL of the cloud through the link."""
        return f"http://127.0.0.1:{self.link}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control}"


@dataclass(frozen=True)
class Pair:
    """The checked settings of both sides, with a key for this run."""

    cloud: CloudSettings
    edge: EdgeSettings
    key: str = field(repr=False)
    wan: Wan | None = None

    @classmethod
    def plan(
        cls, *, teacher: str | None, student: str | None, cloud_port: int, edge_port: int, wan_port: int | None = None
    ) -> Pair:
        """Check the settings and ports. `wan_port` is the port of a link's control API; None means no link.

        Raises ConfigurationError if a setting is invalid or a port is in use.
        """
        key = secrets.token_urlsafe(32)
        keys = ",".join(filter(None, [os.environ.get("GKT_CLOUD_KEYS"), key]))
        cloud = read_settings(CloudSettings, keys=keys, port=cloud_port, **({"model": teacher} if teacher else {}))
        if cloud.tls:
            raise ConfigurationError("gkt up runs on one machine over plain HTTP: unset GKT_CLOUD_TLS_CERT_FILE")
        cloud_port = free_port(cloud.host, cloud_port, option="--cloud-port")
        wan = None
        if wan_port is not None:
            control = free_port("127.0.0.1", wan_port, option="--wan-port")
            wan = Wan(link=free_port("127.0.0.1", 0, option="--wan-port"), control=control)
        edge = read_settings(
            EdgeSettings,
            cloud_url=wan.url if wan else local_url(cloud.host, cloud_port),
            cloud_key=key,
            port=edge_port,
            **({"model": student} if student else {}),
        )
        edge_port = free_port(edge.host, edge_port, option="--edge-port")
        ports = {"port": cloud_port}, {"port": edge_port}
        return cls(cloud.model_copy(update=ports[0]), edge.model_copy(update=ports[1]), key, wan)

    @property
    def cloud_url(self) -> str:
        return local_url(self.cloud.host, self.cloud.port)

    @property
    def edge_url(self) -> str:
        return local_url(self.edge.host, self.edge.port)

    @property
    def services(self) -> list[Service]:
        """Services in the order of their start. A log's name contains the port, so that two pairs do not share a file."""
        folder = home() / "logs"
        keys = ",".join(key.get_secret_value() for key in self.cloud.keys)
        cloud = {"GKT_CLOUD_MODEL": self.cloud.model, "GKT_CLOUD_PORT": str(self.cloud.port), "GKT_CLOUD_KEYS": keys}
        edge = {
            "GKT_EDGE_MODEL": self.edge.model,
            "GKT_EDGE_PORT": str(self.edge.port),
            "GKT_EDGE_CLOUD_URL": self.wan.url if self.wan else self.cloud_url,
            "GKT_EDGE_CLOUD_KEY": self.key,
        }
        services = [
            Service(
                "cloud",
                ["-m", "cloud_teacher"],
                {**COLOCATED_CLOUD_ENV, **os.environ, **cloud},
                folder / f"cloud-{self.cloud.port}.log",
                self.cloud_url,
                self.cloud.shutdown_grace_s,
            ),
            Service(
                "edge",
                ["-m", "edge_student"],
                {**COLOCATED_EDGE_ENV, **os.environ, **edge},
                folder / f"edge-{self.edge.port}.log",
                self.edge_url,
                self.edge.shutdown_grace_s,
            ),
        ]
        if self.wan:
            options = ["--link", f"edge={self.wan.link}", "--to", urlsplit(self.cloud_url).netloc]
            arguments = ["-m", "gkt", "wan", "serve", *options, "--control", str(self.wan.control)]
            log = folder / f"wan-{self.wan.control}.log"
            services.insert(1, Service("wan", arguments, os.environ, log, self.wan.control_url, 0.0))
        return services


class Sides:
    """The processes of both sides and of the link. When one ends, all end."""

    def __init__(self, pair: Pair) -> None:
        self._services = pair.services
        self._children: list[ChildProcess] = []
        self._stop = asyncio.Event()

    async def run(self, *, on_status: Callable[[str], None], on_ready: Callable[[float], None]) -> None:
        """Run all until SIGINT, SIGTERM, SIGHUP or `stop`, and leave no process behind. A second signal cuts the grace short.

        `on_status` gets each state, `on_ready` the seconds until all were ready. Raises SideEnded if a side ends by itself,
        ConfigurationError if one cannot be started.
        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._on_signal)
        try:
            self._start()
            ended = await self._watch(on_status, on_ready, loop.time())
            if ended and not self._stop.is_set():
                raise SideEnded(ended)
            on_status("stopping")
        finally:
            await self._end()

    async def _watch(
        self, on_status: Callable[[str], None], on_ready: Callable[[float], None], began: float
    ) -> ChildProcess | None:
        """Wait for a signal or the end of a side, and return the side that ended."""
        ready = asyncio.create_task(self._until_ready(on_status))
        stop = asyncio.create_task(self._stop.wait())
        ends = {asyncio.create_task(_ended(child)): child for child in self._children}
        try:
            await asyncio.wait({ready, stop, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                on_ready(asyncio.get_running_loop().time() - began)
                await asyncio.wait({stop, *ends}, return_when=asyncio.FIRST_COMPLETED)
            return next((child for end, child in ends.items() if end.done()), None)
        finally:
            for task in (ready, stop, *ends):
                task.cancel()
            await asyncio.gather(ready, stop, *ends, return_exceptions=True)

    def _start(self) -> None:
        for service in self._services:
            # -P: do not import a user's folder that happens to be called `shared`.
            command = [sys.executable, "-P", *service.arguments]
            try:
                child = ChildProcess(service.name, command, env=service.environment, log=service.log)
            except OSError as error:
                raise ConfigurationError(f"the {service.name} cannot be started: {error}") from error
            self._children.append(child)

    def stop(self) -> None:
        """End the run, as a signal does."""
        self._stop.set()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _end(self) -> None:
        ends = zip(self._children, self._services, strict=False)
        await asyncio.gather(*(asyncio.to_thread(child.stop, service.grace_s + GRACE_S) for child, service in ends))

    async def _until_ready(self, on_status: Callable[[str], None]) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while True:
                states = await asyncio.gather(*(_state(client, service.url) for service in self._services))
                on_status(self._sentence(states))
                if all(state.status == "ok" for state in states):
                    return
                await asyncio.sleep(READY_EVERY_S)

    def _sentence(self, states: Sequence[Health]) -> str:
        return ", ".join(
            f"{service.name}: {'ready' if state.status == 'ok' else state.detail or state.status}"
            for service, state in zip(self._services, states, strict=True)
        )


async def _ended(child: ChildProcess) -> None:
    while child.status is None:  # noqa: ASYNC110 - a process sets no event
        await asyncio.sleep(POLL_S)


async def _state(client: httpx.AsyncClient, url: str) -> Health:
    try:
        response = await client.get(f"{url}/ready")
        return Health.model_validate_json(response.content)
    except (httpx.TransportError, ValidationError):
        return Health(status="loading", detail="starting")
