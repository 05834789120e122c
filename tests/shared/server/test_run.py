"""Servers close the connections of clients that do not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from shared.server import run as shared_serving
from tests.running import serving


async def test_a_client_that_never_reads_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_serving, "UNREAD_S", 1)
    app = FastAPI()
    closed = asyncio.Event()

    @app.get("/")
    async def endless() -> StreamingResponse:
        async def write() -> AsyncGenerator[bytes]:
            try:
                while True:
                    await asyncio.sleep(0)
                    yield b"x" * 65536
            finally:
                closed.set()

        return StreamingResponse(write())

    async with serving(app, ready=False) as url:
        address = urlsplit(url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (address.hostname, address.port))
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await closed.wait()
