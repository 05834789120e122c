"""Runner of both services' apps on uvicorn."""

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
"""Thresholds of the garbage collector, far above Python's defaults (700 new objects). With the defaults, hundreds of streams that
began at once were all delayed by a tenth of a second (`gkt bench cloud --only fleet`). Objects of a request are freed without it.
"""
KEEP_ALIVE_S = 75
"""Lifetime of idle connections, longer than clients keep them (the edge: 60 s), so that no request meets a closing one."""

UNREAD_S = 60
"""Timeout after which the connection of a client that does not read, or whose machine is gone, is closed."""


class Server(uvicorn.Server):
    """A uvicorn server that reports its port, and can end with a failure."""

    def __init__(self, config: uvicorn.Config, *, port_file: Path | None = None) -> None:
        super().__init__(config)
        self.failed = False
        self._port_file = port_file

    @property
    def port(self) -> int:
        """Port that the server is bound to."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    def fail(self) -> None:
        """End the process with status 1."""
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
    """Set keep-alive and TCP_USER_TIMEOUT on the listening socket; accepted connections inherit them."""
    if listening.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": UNREAD_S,
        "TCP_KEEPINTVL": UNREAD_S,
        "TCP_USER_TIMEOUT": 1000 * UNREAD_S,
    }.items():
        if hasattr(socket, name):  # Linux only
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
    """Serve until SIGINT or SIGTERM; active requests then have `grace_s` seconds to finish. Returns the exit status.

    `make_app` gets the function that the app calls if it cannot work at all.
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
    """Run `serve` with the settings of a service."""
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
