"""Clients of the edges: those that read, those that vanish, those that never read. They note what they were sent."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from evaluation.chaos.workload import Ask, Behaviour

NARROW_BYTES = 4096
"""What the system takes in for a client that never reads."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request. Times are of `time.monotonic`."""

    ask: Ask
    sent_s: float
    ended_s: float
    status: int | None = None
    body: bytes = b""
    broke: str | None = None
    """What went wrong with the connection."""
    late: bool = False
    """Whether it had not ended at its deadline."""


class Clients:
    """Each request has a connection of its own. Nothing is retried."""

    def __init__(self, urls: dict[str, str], *, deadline_s: float) -> None:
        self._urls = urls
        self._deadline_s = deadline_s
        self._over = asyncio.Event()
        # One connection for each request: none is kept.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113 - `ask` has a deadline

    async def close(self) -> None:
        await self._http.aclose()

    def leave(self) -> None:
        """Those who never read go now."""
        self._over.set()

    async def ask(self, ask: Ask, stays: Callable[[bytes], bool] | None = None) -> Outcome:
        """Send a request, and stay as long as its client does; one that reads goes where `stays` says so of all it has read."""
        began = time.monotonic()
        match ask.behaviour:
            case Behaviour.READS:
                return await self._read(ask, began, stays)
            case Behaviour.VANISHES:
                try:
                    async with asyncio.timeout(ask.leaves_s):
                        return await self._read(ask, began)
                except TimeoutError:
                    return Outcome(ask, began, time.monotonic())
            case Behaviour.NEVER_READS:
                return await self._never_read(ask, began)

    async def _read(self, ask: Ask, began: float, stays: Callable[[bytes], bool] | None = None) -> Outcome:
        status: int | None = None
        body = bytearray()
        broke: str | None = None
        late = asyncio.timeout(self._deadline_s)
        try:
            url = f"{self._urls[ask.edge]}/v1/chat/completions"
            async with late, self._http.stream("POST", url, json=ask.body) as response:
                status = response.status_code
                async for data in response.aiter_bytes():
                    body += data
                    if stays and not stays(bytes(body)):
                        break
        except httpx.TransportError as error:
            broke = f"{type(error).__name__} {error}".strip()
        except TimeoutError:
            if not late.expired():
                raise
        return Outcome(ask, began, time.monotonic(), status, bytes(body), broke, late=late.expired())

    async def _never_read(self, ask: Ask, began: float) -> Outcome:
        address = urlsplit(self._urls[ask.edge])
        body = json.dumps(ask.body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (address.hostname, address.port))
            await loop.sock_sendall(sock, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            await self._over.wait()
        except OSError as error:
            return Outcome(ask, began, time.monotonic(), broke=str(error))
        finally:
            sock.close()
        return Outcome(ask, began, time.monotonic())
