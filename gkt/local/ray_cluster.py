"""`gkt cloud --ray`: Ray Serve on this machine, a Ray of its own or the one that RAY_ADDRESS names, until told to go."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import serve

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.ray_serve.app import CLOSING_S, NAME, Given, MakeApp, application, engine_app
from cloud_teacher.ray_serve.replicas import Replicas, check_fields
from cloud_teacher.teachers.factory import own_engine
from cloud_teacher.teachers.processes import adopt_orphans, end_descendants
from gkt.local.preflight import free_port
from shared.atomic_file import write_atomically
from shared.errors import ConfigurationError
from shared.observability.logs import set_up_logs
from shared.server.run import KEEP_ALIVE_S

logger = logging.getLogger("gkt.cloud")

OBJECT_STORE_BYTES = 128 << 20
"""Streams do not go through it."""


class Told(BaseException):
    """To go, by a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.status = 130 if signum == signal.SIGINT else 0


def serve_here(settings: CloudSettings, replicas: Replicas, *, make_app: MakeApp = engine_app) -> int:
    """Serve until SIGINT or SIGTERM; guidance under way may take the settings' grace to end then. Returns the exit status.

    A second signal ends it at once. No process is left behind, unless this one is killed. Raises ConfigurationError.
    """
    check_fields(settings, replicas, machines=False)
    port = free_port(settings.host, settings.port, option="--port")
    set_up_logs(settings.log_level, settings.log_format)
    try:
        with _ray(replicas), _serve(settings, port):
            gpus = _gpus(settings, replicas)
            app = application(settings, replicas, read=Given(settings), gpus=gpus, make_app=make_app)
            try:
                serve.run(app, name=NAME, route_prefix="/")
            except RuntimeError as error:  # which Serve raises where replicas cannot be started
                logger.error("%s", error)
                return 1
            if settings.port_file:
                write_atomically(Path(settings.port_file), f"{port}\n")
            logger.info("the cloud is ready on port %d, with %d replicas", port, replicas.least)
            threading.Event().wait()
    except Told as told:
        return told.status
    return 0


@contextmanager
def _ray(replicas: Replicas) -> Iterator[None]:
    """A Ray to run on. One of our own is gone behind it, with all its processes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joined = bool(os.environ.get("RAY_ADDRESS"))
    own: dict[str, Any] = {
        "address": "local",
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        # As many as replicas reserve, with room for others while they are replaced. In truth they share what there is.
        "num_cpus": max(os.cpu_count() or 1, 2 * replicas.most),
    }
    try:
        ray.init(logging_level=logging.WARNING, **({} if joined else own))
    except ConnectionError as error:
        raise ConfigurationError(f"RAY_ADDRESS: there is no Ray to join: {error}") from error
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _tell)
    try:
        yield
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        adopt_orphans()
        ray.shutdown()
        end_descendants()


def _tell(signum: int, frame: FrameType | None) -> None:
    raise Told(signum)


@contextmanager
def _serve(settings: CloudSettings, port: int) -> Iterator[None]:
    """Serve's proxy, and nothing served behind it once that is over."""
    if serve.status().proxies:
        raise ConfigurationError(
            "that Ray has a Serve already: give it deploy/ray/serve.yaml with `serve deploy`, and leave RAY_ADDRESS away here"
        )
    http: dict[str, Any] = {"host": settings.host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE_S}
    if settings.tls:
        http |= {"ssl_certfile": str(settings.tls.cert_file), "ssl_keyfile": str(settings.tls.key_file)}
    serve.start(
        proxy_location="HeadOnly",
        http_options=http,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # this process's own
    try:
        yield
    finally:
        _delete(settings.shutdown_grace_s)
        serve.shutdown()  # type: ignore[no-untyped-call]


def _delete(grace_s: float) -> None:
    """End the replicas while the proxy is still there for what they write. `serve.shutdown` would end both at once."""
    until = time.monotonic() + grace_s + CLOSING_S
    while True:
        try:
            serve.delete(NAME)
            return
        except TimeoutError:  # after a minute
            if time.monotonic() > until:
                return


def _gpus(settings: CloudSettings, replicas: Replicas) -> float:
    """Of each replica. Raises ConfigurationError where there are not enough."""
    there = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if not own_engine(settings) or not there:
        return 0
    if replicas.least > there:
        raise ConfigurationError(f"{replicas.least} replicas want a GPU each, and Ray has {there:g}")
    return 1
