"""`gkt cloud --ray`: run Ray Serve on this machine, on a Ray of its own or the one at RAY_ADDRESS, until a signal."""

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
from cloud_teacher.ray_serve.app import ENGINE_SHUTDOWN_S, NAME, FixedSettings, MakeApp, application, engine_app
from cloud_teacher.ray_serve.replicas import Replicas, check_fields
from cloud_teacher.teachers.factory import local_model_name
from cloud_teacher.teachers.processes import adopt_orphans, end_descendants
from gkt.local.preflight import free_port
from shared.atomic_file import write_atomically
from shared.errors import ConfigurationError
from shared.observability.logs import set_up_logs
from shared.server.run import KEEP_ALIVE_S

logger = logging.getLogger("gkt.cloud")

OBJECT_STORE_BYTES = 128 << 20
"""Size of Ray's object store; streams do not pass through it."""


class Terminated(BaseException):
    """A signal ends the service."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.status = 130 if signum == signal.SIGINT else 0


def serve_here(settings: CloudSettings, replicas: Replicas, *, make_app: MakeApp = engine_app) -> int:
    """Serve until SIGINT or SIGTERM; running guidance then has the configured grace to end. Returns the exit status.

    A second signal ends the service at once. No process is left, unless this one is killed. Raises ConfigurationError.
    """
    check_fields(settings, replicas, machines=False)
    port = free_port(settings.host, settings.port, option="--port")
    set_up_logs(settings.log_level, settings.log_format)
    try:
        with _ray(replicas), _serve(settings, port):
            gpus = _gpus(settings, replicas)
            app = application(settings, replicas, read=FixedSettings(settings), gpus=gpus, make_app=make_app)
            try:
                serve.run(app, name=NAME, route_prefix="/")
            except RuntimeError as error:  # Serve raises this if replicas cannot start
                logger.error("%s", error)
                return 1
            if settings.port_file:
                write_atomically(Path(settings.port_file), f"{port}\n")
            logger.info("the cloud is ready on port %d, with %d replicas", port, replicas.minimum)
            threading.Event().wait()
    except Terminated as terminated:
        return terminated.status
    return 0


@contextmanager
def _ray(replicas: Replicas) -> Iterator[None]:
    """Start or join a Ray. One that was started here ends with all its processes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joined = bool(os.environ.get("RAY_ADDRESS"))
    own: dict[str, Any] = {
        "address": "local",
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        # As many as replicas reserve, with room for their replacements. In fact all share the real ones.
        "num_cpus": max(os.cpu_count() or 1, 2 * replicas.maximum),
    }
    try:
        ray.init(logging_level=logging.WARNING, **({} if joined else own))
    except ConnectionError as error:
        raise ConfigurationError(f"RAY_ADDRESS: no Ray to join: {error}") from error
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _terminate)
    try:
        yield
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        adopt_orphans()
        ray.shutdown()
        end_descendants()


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated(signum)


@contextmanager
def _serve(settings: CloudSettings, port: int) -> Iterator[None]:
    """Run Serve's proxy, and delete the application at the end."""
    if serve.status().proxies:
        raise ConfigurationError(
            "this Ray runs a Serve already: deploy deploy/ray/serve.yaml with `serve deploy` there, or unset RAY_ADDRESS"
        )
    http: dict[str, Any] = {"host": settings.host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE_S}
    if settings.tls:
        http |= {"ssl_certfile": str(settings.tls.cert_file), "ssl_keyfile": str(settings.tls.key_file)}
    serve.start(
        proxy_location="HeadOnly",
        http_options=http,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # of this process
    try:
        yield
    finally:
        _delete(settings.shutdown_grace_s)
        serve.shutdown()  # type: ignore[no-untyped-call]


def _delete(grace_s: float) -> None:
    """End the replicas while the proxy still forwards their streams; `serve.shutdown` would end both at once."""
    until = time.monotonic() + grace_s + ENGINE_SHUTDOWN_S
    while True:
        try:
            serve.delete(NAME)
            return
        except TimeoutError:  # raised after a minute
            if time.monotonic() > until:
                return


def _gpus(settings: CloudSettings, replicas: Replicas) -> float:
    """Return the number of GPUs for each replica. Raises ConfigurationError if there are too few."""
    there = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if not local_model_name(settings) or not there:
        return 0
    if replicas.minimum > there:
        raise ConfigurationError(f"{replicas.minimum} replicas need one GPU each, and Ray has {there:g}")
    return 1
