"""Plain sockets in an event loop. asyncio's streams read ahead, cannot be reset and do not report how much was sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from wan.link.units import Address

BACKLOG = 1024
UNREAD_PIECES = 100
"""Upper bound of the pieces that are read and dropped before a close, because a sender may never stop."""
_LINGER_NOT = struct.pack("ii", 1, 0)


async def readable(sock: socket.socket) -> None:
    """Wait until data, an end or an error can be read."""
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
    """Return the available bytes, at least one; none at the end. Raises OSError."""
    while True:
        try:
            return sock.recv(limit)
        except (BlockingIOError, InterruptedError):
            await readable(sock)


async def connected(address: Address) -> socket.socket:
    """Connect to the first of the host's addresses that accepts. Raises OSError."""
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
    """Reserve a port without listening: connections are refused, and the system gives the port to no other process."""
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
    """Listen on a reserved port. Raises OSError if another process listens there."""
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
    """Make a socket non-blocking, and turn off the kernel's own delay (Nagle)."""
    sock.setblocking(False)
    with suppress(OSError):  # the connection is closed already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def close(sock: socket.socket, *, reset: bool) -> None:
    """End a connection with a FIN, or with a RST that drops unsent bytes."""
    with suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        else:
            # The kernel resets a connection that is closed with unread bytes.
            for _ in range(UNREAD_PIECES):
                if not sock.recv(65536):
                    break
    sock.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
