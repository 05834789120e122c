"""Server for `/metrics` alone on a second port, for a cloud whose API only its edges may reach."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from shared.server.app import add_metrics
from shared.server.run import Server

SHUTDOWN_GRACE_S = 1


class _MetricsServer(Server):
    """A server beside the one that serves the API in the same event loop."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the API's server."""
        yield


@asynccontextmanager
async def metrics_server(
    host: str, port: int | None, registries: Callable[[], list[CollectorRegistry]]
) -> AsyncGenerator[None]:
    """Serve metrics over plain HTTP, without a key; without a port do nothing. Raises OSError.

    A page shows the registries of that moment: the engine's registry exists when the teacher is loaded.
    """
    if port is None:
        yield
        return
    app = FastAPI(title="gkt cloud", openapi_url=None)
    add_metrics(app, registries)
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )
    server = _MetricsServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
