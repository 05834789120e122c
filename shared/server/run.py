"""Runs an app with uvicorn the same way on both sides."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from shared.atomic_file import write_atomically
from shared.observability.logs import LogFormat, set_up_logs
from shared.server.settings import ServiceSettings
from shared.server.tls import ServerTls

GC_THRESHOLDS = (100_000, 50, 100)
"""By itself Python looks for cycles every 700 new objects, and now and then through all there are. Where hundreds of streams
began at once, that held all of them up for a tenth of a second (`gkt bench cloud --only fleet`). What a request makes is freed
without it.
"""
KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections (the edge: 60), so that none is closed under a request on its way."""

UNREAD_S = 60
"""For so long a client may take nothing of what is sent to it, or its machine be gone; then its connection is closed."""


class Server(uvicorn.Server):
    """A uvicorn server that says where it listens, and can be told to end as failed."""

    def __init__(self, config: uvicorn.Config, *, port_file: Path | None = None) -> None:
        super().__init__(config)
        self.failed = False
        self._port_file = port_file

    @property
    def port(self) -> int:
        """The port it is bound to."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    def fail(self) -> None:
        """End the process with status 1: what the app exists for cannot be had."""
        self.failed = True
        self.should_exit = True

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        for server in self.servers:
            for listening in server.sockets:
                _watch_clients(listening)
        if self.started and self._port_file:
            write_atomically(self._port_file, f"{self.port}\n")


def _watch_clients(listening: socket.socket) -> None:
    """Have the kernel see to those who do not read: whoever accepts a connection here has these options on it."""
    if listening.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": UNREAD_S,
        "TCP_KEEPINTVL": UNREAD_S,
        "TCP_USER_TIMEOUT": 1000 * UNREAD_S,
    }.items():
        if hasattr(socket, name):  # they are Linux's
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def serve(
    make_app: Callable[[Callable[[], None]], FastAPI],
    *,
    host: str,
    port: int,
    grace_s: int,
    log_level: str,
    log_format: LogFormat = "text",
    port_file: str | None = None,
    tls: ServerTls | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; what is under way then may take `grace_s` seconds to end. Returns the exit status.

    `make_app` is given the function to call where the app cannot do its work at all.
    """
    set_up_logs(log_level, log_format)
    gc.set_threshold(*GC_THRESHOLDS)
    server: Server | None = None

    def fail() -> None:
        if server:
            server.fail()

    config = uvicorn.Config(
        make_app(fail),
        host=host,
        port=port,
        log_config=None,
        log_level=log_level,
        access_log=False,
        timeout_graceful_shutdown=grace_s,
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
        ssl_certfile=tls.cert_file if tls else None,
        ssl_keyfile=tls.key_file if tls else None,
        ssl_ca_certs=str(tls.client_ca_file) if tls and tls.client_ca_file else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca_file else ssl.CERT_NONE,
    )
    server = Server(config, port_file=Path(port_file) if port_file else None)
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 1 if server.failed or not server.started else 0


def serve_as(
    settings: ServiceSettings,
    make_app: Callable[[Callable[[], None]], FastAPI],
    *,
    tls: ServerTls | None = None,
) -> int:
    """`serve`, as a service's settings have it."""
    return serve(
        make_app,
        host=settings.host,
        port=settings.port,
        port_file=settings.port_file,
        tls=tls,
        grace_s=settings.shutdown_grace_s,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
