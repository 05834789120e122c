"""Real servers behind a link in this event loop, and connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from wan import Link, Wan

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what arrives, and end when the client does."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def target(handler: Handler) -> AsyncGenerator[str]:
    """Run a server that closes each connection after `handler`. Yields its address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await handler(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


@asynccontextmanager
async def linked(handler: Handler = echo) -> AsyncGenerator[Link]:
    """Run a link in front of such a server."""
    async with target(handler) as address, Wan({"edge": "0"}, to=address) as wan:
        yield wan.link("edge")


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, data: bytes) -> bytes:
        """Send the data, and read as many bytes."""
        self.writer.write(data)
        return await self.reader.readexactly(len(data))

    async def rest(self) -> bytes:
        """Return everything that arrives before the connection ends, in whatever way it ends."""
        received = bytearray()
        with suppress(OSError):
            while data := await self.reader.read(65536):
                received += data
        return bytes(received)


@asynccontextmanager
async def client(link: Link) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection(*link.address)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. The test's own time limit ends the wait."""
    while not condition():
        await asyncio.sleep(0.002)
