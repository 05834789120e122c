"""Clients of the edges: some read their answers, some disconnect, some never read."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from evaluation.chaos.workload import Behaviour, ClientRequest
from shared.protocol.sse import TimedBytes

Stays = Callable[[Sequence[TimedBytes]], bool]

RECEIVE_BUFFER_BYTES = 4096
"""Bytes that the system receives for a client that never reads."""


@dataclass(frozen=True)
class Response:
    """The end of a request as its client saw it. Times are of `time.monotonic`."""

    request: ClientRequest
    sent_s: float
    ended_s: float
    status: int | None = None
    reads: Sequence[TimedBytes] = ()
    connection_error: str | None = None
    late: bool = False
    """True if the request had not ended at its deadline."""

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.reads)


class Clients:
    """Each request has a connection of its own. No request is retried."""

    def __init__(self, urls: dict[str, str], *, deadline_s: float) -> None:
        self._urls = urls
        self._deadline_s = deadline_s
        self._finished = asyncio.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113 - `_read` has a deadline

    async def aclose(self) -> None:
        await self._http.aclose()

    def disconnect_idle(self) -> None:
        """Disconnect the clients that never read."""
        self._finished.set()

    async def send(self, request: ClientRequest, stays: Stays | None = None) -> Response:
        """Send a request. A client that reads disconnects if `stays`, called with all reads so far, returns False."""
        began = time.monotonic()
        match request.behaviour:
            case Behaviour.READS:
                return await self._read(request, began, stays)
            case Behaviour.VANISHES:
                try:
                    async with asyncio.timeout(request.leaves_s):
                        return await self._read(request, began)
                except TimeoutError:
                    return Response(request, began, time.monotonic())
            case Behaviour.NEVER_READS:
                return await self._never_read(request, began)

    async def _read(self, request: ClientRequest, began: float, stays: Stays | None = None) -> Response:
        status: int | None = None
        reads: list[TimedBytes] = []
        problem: str | None = None
        deadline = asyncio.timeout(self._deadline_s)
        try:
            url = f"{self._urls[request.edge]}/v1/chat/completions"
            async with deadline, self._http.stream("POST", url, json=request.body) as response:
                status = response.status_code
                async for data in response.aiter_bytes():
                    reads.append((time.monotonic(), data))
                    if stays and not stays(reads):
                        break
        except httpx.TransportError as error:
            problem = f"{type(error).__name__} {error}".strip()
        except TimeoutError:
            if not deadline.expired():
                raise
        return Response(request, began, time.monotonic(), status, reads, problem, late=deadline.expired())

    async def _never_read(self, request: ClientRequest, began: float) -> Response:
        address = urlsplit(self._urls[request.edge])
        body = json.dumps(request.body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
                sock.setblocking(False)
                await loop.sock_connect(sock, (address.hostname, address.port))
                await loop.sock_sendall(sock, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                await self._finished.wait()
            except OSError as error:
                return Response(request, began, time.monotonic(), connection_error=str(error))
        return Response(request, began, time.monotonic())
