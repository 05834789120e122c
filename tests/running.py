"""Apps on a real uvicorn, and real processes, at ports that the system chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from shared.server.run import Server


@asynccontextmanager
async def serving(app: FastAPI, *, ready: bool = True) -> AsyncGenerator[str]:
    """Serve an app on 127.0.0.1 in this event loop. Yields its base URL, by default when `/ready` is 200."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=5)
    server = Server(config)
    # Signals stay the test runner's.
    serving = asyncio.create_task(server._serve())
    try:
        while not server.started:
            if serving.done():
                serving.result()
                raise RuntimeError("the app did not start")
            await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{server.port}"
        if ready:
            async with httpx.AsyncClient(base_url=url) as client:
                await until_ready(client)
        yield url
    finally:
        server.should_exit = True
        await serving


async def until_ready(client: httpx.AsyncClient) -> None:
    """Wait until `/ready` is 200. The test's own time limit ends the wait."""
    while True:
        try:
            if (await client.get("/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)
