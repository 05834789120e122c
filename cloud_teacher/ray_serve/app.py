"""The cloud on Ray Serve: replicas on any number of machines, each the whole app with an engine of its own.

`build` is for Serve's config files (`import_path: cloud_teacher.ray_serve.app:build`, deploy/ray/serve.yaml);
`gkt.local.ray_cluster` starts the same on this machine. Serve's proxy takes the requests and sends each to the replica with
the fewest requests.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.ray_serve.replicas import Replicas, check_fields
from shared.errors import ConfigurationError, EngineFailed
from shared.observability.logs import set_up_logs
from shared.observability.telemetry import telemetry_from

NAME = "gkt"
"""Of the application, and of its one deployment's replicas in logs and process titles."""
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens here, but Serve's proxies do, on all addresses by default
SPARE = 16
"""Requests at a replica beyond those that it lets run and wait: it refuses them itself, and says when to come back; health
and metrics get through. Serve would let them wait in its proxy without a word."""
CLOSING_S = 10
"""The engine may take this long to end, behind the grace for streams."""
BUSY = 0.75
"""Another replica is started where those there are have more than this part of what they can run at once."""

Read = Callable[[], CloudSettings]
MakeApp = Callable[[CloudSettings, Callable[[], None], Callable[[], None]], FastAPI]
"""An app from its settings, `on_ready` and `on_failure`."""


class CloudReplica:
    """One replica: the app, built where it runs, from the settings as they are read there."""

    def __init__(self, read: Read, make_app: MakeApp) -> None:
        self._settings = read()
        self._make_app = make_app
        self._settled = asyncio.Event()
        set_up_logs(self._settings.log_level, self._settings.log_format)

    def __serve_build_asgi_app__(self) -> BehindServe:
        self._app = self._make_app(self._settings, self._settled.set, self._settled.set)
        return BehindServe(self._app)

    async def check_health(self) -> None:
        """Serve asks once before a replica gets requests, then each second. Raises EngineFailed: it starts another instead.

        The first answer waits until the teacher is loaded, so that no request meets a replica which has none yet.
        """
        await self._settled.wait()
        health = self._app.state.health()
        if health.status == "failed":
            raise EngineFailed(health.detail or "the teacher failed")


class BehindServe:
    """Hands what the app's lifespan yields to its requests, as the ASGI specification has it; Serve does not.

    And leaves the response's `x-request-id` to Serve's proxy, which would put it there twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        state = self._state if scope["type"] == "lifespan" else self._state.copy()
        await self._app({**scope, "state": state}, receive, send_without_id)


def engine_app(settings: CloudSettings, on_ready: Callable[[], None], on_failure: Callable[[], None]) -> FastAPI:
    """The app with the teacher that its settings name."""
    telemetry = telemetry_from(os.environ, "gkt-cloud", content=settings.trace_content)
    return create_app(settings, telemetry=telemetry, on_ready=on_ready, on_failure=on_failure)


def application(
    settings: CloudSettings, replicas: Replicas, *, read: Read, gpus: float, make_app: MakeApp = engine_app
) -> Application:
    """What Serve runs. `settings` say how Serve is to treat the replicas, which `read` their own."""
    scale: dict[str, Any] = {"num_replicas": replicas.least}
    if replicas.most > replicas.least:
        scale = {
            "autoscaling_config": {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "target_ongoing_requests": max(1.0, BUSY * settings.max_running),
            }
        }
    if settings.metrics_port:
        scale["max_replicas_per_node"] = 1  # they would all want the port
    deployment: Any = serve.deployment(
        serve.ingress()(CloudReplica),
        name="cloud",
        max_ongoing_requests=settings.max_running + settings.max_queue + SPARE,
        graceful_shutdown_timeout_s=settings.shutdown_grace_s + CLOSING_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=1,
        health_check_timeout_s=30,
        max_constructor_retry_count=3,
        # New replicas are there before old ones go. Where there is no room for one, nothing moves: then set it to 0.
        max_surge_percent=25,
        ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        **scale,
    )
    bound: Application = deployment.bind(read, make_app)
    return bound


class ServeArgs(BaseModel):
    """`args` of an application in Serve's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: str = Field(default="1", description="MIN, or MIN:MAX to have the requests that run decide")
    gpus: float = Field(default=1.0, ge=0, description="GPUs of a replica; 0: vLLM's build for CPUs, or an upstream")
    settings: dict[str, str | int | float | bool] = Field(
        default={},
        description="settings by their names (model, max_running, …) before those of the environment. No secrets: "
        "anyone who sees the cluster's dashboard sees them",
    )


SECRET = {"keys", "store_url", "upstream_key"}
PROXYS = {"host", "port"}


def build(args: dict[str, Any]) -> Application:
    """For a Serve config. Settings are read from each machine's environment (`GKT_CLOUD_...`), the head's and the workers'.

    Raises ConfigurationError or pydantic's ValidationError.
    """
    given = ServeArgs.model_validate(args)
    for name in given.settings:
        if name in SECRET:
            raise ConfigurationError(f"{name} is a secret: set GKT_CLOUD_{name.upper()} in the machines' environment")
        if name in PROXYS:
            raise ConfigurationError(f"{name}: it is Serve's proxy that listens: see http_options in its config")
    read = ReadThere(given.settings)
    settings, replicas = read(), Replicas.parse(given.replicas)
    check_fields(settings, replicas, machines=True)
    return application(settings, replicas, read=read, gpus=given.gpus)


class Given:
    """Settings as they were read already, secrets too. They do not show in Serve's status or dashboard."""

    def __init__(self, settings: CloudSettings) -> None:
        self._settings = settings

    def __call__(self) -> CloudSettings:
        return self._settings


class ReadThere:
    """Settings out of the environment of wherever it is called. As Serve listens everywhere, they must have keys."""

    def __init__(self, given: dict[str, str | int | float | bool]) -> None:
        self._given = given

    def __call__(self) -> CloudSettings:
        settings: dict[str, Any] = {**self._given, "host": EVERYWHERE}
        return CloudSettings(**settings)
