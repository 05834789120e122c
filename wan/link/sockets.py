"""Plain sockets in an event loop. asyncio's streams read ahead, cannot be reset and do not say how much was sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from wan.link.units import Address

BACKLOG = 1024
UNREAD_PIECES = 100
"""So much is read and dropped before a connection is closed, and no more: whoever sends may never stop."""
_LINGER_NOT = struct.pack("ii", 1, 0)


async def readable(sock: socket.socket) -> None:
    """Wait until something can be read, an end or an error included."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


async def writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(sock, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


async def received(sock: socket.socket, limit: int) -> bytes:
    """What there is, at least a byte; nothing at the end. Raises OSError."""
    while True:
        try:
            return sock.recv(limit)
        except (BlockingIOError, InterruptedError):
            await readable(sock)


async def connected(address: Address) -> socket.socket:
    """A connection. Each of the host's addresses is tried in turn. Raises OSError."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"{address.host} has no address")
    for family, kind, protocol, _, where in await loop.getaddrinfo(*address, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            tune(sock)
            await loop.sock_connect(sock, where)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def held(address: Address) -> socket.socket:
    """A socket that holds a port without listening: connections are refused, and nobody else is given the port by chance."""
    found = await asyncio.get_running_loop().getaddrinfo(*address, type=socket.SOCK_STREAM)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def listening(holder: socket.socket) -> socket.socket:
    """A listener on the port that is held. Raises OSError where somebody else listens there."""
    sock = socket.socket(holder.family, holder.type, holder.proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(holder.getsockname())
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def tune(sock: socket.socket) -> None:
    """The delays are ours: the kernel adds none of its own."""
    sock.setblocking(False)
    with suppress(OSError):  # a connection that is dead already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def close(sock: socket.socket, *, reset: bool) -> None:
    """End a connection: with a FIN, or with a RST and whatever waits in it dropped."""
    with suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        else:
            # The kernel resets a connection that is closed with something unread.
            for _ in range(UNREAD_PIECES):
                if not sock.recv(65536):
                    break
    sock.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
