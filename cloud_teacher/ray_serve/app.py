"""The cloud on Ray Serve: replicas on any number of machines, each with the whole app and an engine of its own.

Serve's config files use `build` (`import_path: cloud_teacher.ray_serve.app:build`, deploy/ray/serve.yaml), and
`gkt.local.ray_cluster` starts the same replicas on this machine. Serve's proxy sends each request to the replica with the fewest
requests.
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
"""Name of the application, also in logs and process titles."""
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - Serve's proxies listen there by default
EXTRA_REQUESTS = 16
"""Requests at a replica beyond those that run and wait. The replica itself rejects them with a Retry-After, and answers health
and metrics requests. Serve would make them wait in its proxy."""
ENGINE_SHUTDOWN_S = 10
"""Time for the engine to end, after the grace period of running requests."""
TARGET_LOAD = 0.75
"""Fraction of the slots of all replicas above which another replica is started."""

ReadSettings = Callable[[], CloudSettings]
MakeApp = Callable[[CloudSettings, Callable[[], None], Callable[[], None]], FastAPI]
"""Builds an app from settings, `on_ready` and `on_failure`."""


class CloudReplica:
    """One replica. It reads the settings and builds the app on its own machine."""

    def __init__(self, read: ReadSettings, make_app: MakeApp) -> None:
        self._settings = read()
        self._make_app = make_app
        self._settled = asyncio.Event()
        set_up_logs(self._settings.log_level, self._settings.log_format)

    def __serve_build_asgi_app__(self) -> ServeAdapter:
        self._app = self._make_app(self._settings, self._settled.set, self._settled.set)
        return ServeAdapter(self._app)

    async def check_health(self) -> None:
        """Raises EngineFailed if the replica must be replaced. Serve calls it before the first request, then every second.

        The first call waits until the teacher is loaded, so that no request reaches a replica without a teacher.
        """
        await self._settled.wait()
        health = self._app.state.health()
        if health.status == "failed":
            raise EngineFailed(health.detail or "the teacher failed")


class ServeAdapter:
    """Passes the state of the app's lifespan to its requests, as ASGI specifies; Serve does not.

    It also removes `x-request-id` from responses, because Serve's proxy adds the same header.
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
    """Return the app with the teachers of its settings."""
    telemetry = telemetry_from(os.environ, "gkt-cloud", content=settings.trace_content)
    return create_app(settings, telemetry=telemetry, on_ready=on_ready, on_failure=on_failure)


def application(
    settings: CloudSettings, replicas: Replicas, *, read: ReadSettings, gpus: float, make_app: MakeApp = engine_app
) -> Application:
    """Return the application for Serve. `settings` configure Serve; each replica reads its own with `read`."""
    scale: dict[str, Any] = {"num_replicas": replicas.minimum}
    if replicas.maximum > replicas.minimum:
        scale = {
            "autoscaling_config": {
                "min_replicas": replicas.minimum,
                "max_replicas": replicas.maximum,
                "target_ongoing_requests": max(1.0, TARGET_LOAD * settings.max_running),
            }
        }
    if settings.metrics_port:
        scale["max_replicas_per_node"] = 1  # each one needs the port
    deployment: Any = serve.deployment(
        serve.ingress()(CloudReplica),
        name="cloud",
        max_ongoing_requests=settings.max_running + settings.max_queue + EXTRA_REQUESTS,
        graceful_shutdown_timeout_s=settings.shutdown_grace_s + ENGINE_SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=1,
        health_check_timeout_s=30,
        max_constructor_retry_count=3,
        # New replicas start before old ones stop. On machines without room for one more, set it to 0, or updates block.
        max_surge_percent=25,
        ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        **scale,
    )
    bound: Application = deployment.bind(read, make_app)
    return bound


class ServeArgs(BaseModel):
    """The `args` of an application in Serve's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: str = Field(
        default="1", description="number of replicas: MIN, or MIN:MAX to scale with the running requests"
    )
    gpus: float = Field(
        default=1.0, ge=0, description="GPUs of a replica; 0 for vLLM's CPU build or an upstream server"
    )
    settings: dict[str, str | int | float | bool] = Field(
        default={},
        description="settings by name (model, max_running, …); they override the environment. No secrets: the cluster's "
        "dashboard shows them",
    )


SECRETS = {"keys", "store_url", "upstream_key"}
PROXY_SETTINGS = {"host", "port"}


def build(args: dict[str, Any]) -> Application:
    """Build the application of a Serve config. Each machine reads settings from its own environment (`GKT_CLOUD_...`).

    Raises ConfigurationError or pydantic's ValidationError.
    """
    given = ServeArgs.model_validate(args)
    for name in given.settings:
        if name in SECRETS:
            raise ConfigurationError(
                f"{name} is a secret; set GKT_CLOUD_{name.upper()} in the environment of each machine"
            )
        if name in PROXY_SETTINGS:
            raise ConfigurationError(
                f"{name} must not be set, because Serve's proxy listens; use http_options in Serve's config"
            )
    read = EnvironmentSettings(given.settings)
    settings, replicas = read(), Replicas.parse(given.replicas)
    check_fields(settings, replicas, machines=True)
    return application(settings, replicas, read=read, gpus=given.gpus)


class FixedSettings:
    """Returns settings that were read before, secrets included. Serve's status and dashboard do not show them."""

    def __init__(self, settings: CloudSettings) -> None:
        self._settings = settings

    def __call__(self) -> CloudSettings:
        return self._settings


class EnvironmentSettings:
    """Reads settings from the environment of the calling machine. Serve listens on all addresses, so they need keys."""

    def __init__(self, given: dict[str, str | int | float | bool]) -> None:
        self._given = given

    def __call__(self) -> CloudSettings:
        settings: dict[str, Any] = {**self._given, "host": ALL_ADDRESSES}
        return CloudSettings(**settings)
