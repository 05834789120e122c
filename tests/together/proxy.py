"""A TCP proxy on loopback that does what a bad network does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to what the cloud sends.

    `after` bytes of the response body pass untouched (all bytes count, headers too); None lets everything pass.
    """

    after: int | None = None
    then: str = "reset"
    """`reset`, `close`, `stall` or `garbage`."""
    rewrite: Callable[[bytes], bytes] = field(default=lambda data: data)


@dataclass
class Proxy:
    url: str
    fault: Fault = field(default_factory=Fault)
    connections: int = 0


@asynccontextmanager
async def proxy(target: str) -> AsyncGenerator[Proxy]:
    """A proxy before `target`, a base URL. Its `fault` may be changed at any time."""
    address = urlsplit(target)
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        handlers.add(task)
        running.connections += 1
        up_reader, up_writer = await asyncio.open_connection(address.hostname, address.port)
        upward = asyncio.create_task(_pump(reader, up_writer))
        try:
            fault: Fault | None = None
            left: int | None = None
            while data := await up_reader.read(65536):
                if fault is not running.fault:
                    # Connections serve many requests: a fault holds for what comes after it was set.
                    fault = running.fault
                    left = fault.after
                data = fault.rewrite(data)
                part = data if left is None else data[:left]
                writer.write(part)
                await writer.drain()
                if left is not None:
                    left -= len(part)
                    if left == 0:
                        await _break(fault.then, writer)
                        return
        except OSError:
            pass
        finally:
            upward.cancel()
            up_writer.close()
            writer.close()
            handlers.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    running = Proxy(f"http://127.0.0.1:{port}")
    try:
        yield running
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _break(then: str, writer: asyncio.StreamWriter) -> None:
    match then:
        case "reset":
            writer.transport.abort()
        case "close":
            writer.close()
        case "stall":
            await asyncio.Event().wait()
        case "garbage":
            writer.write(b"\xff\x00 this is no event \n\n" * 20)
            await writer.drain()
            writer.close()
