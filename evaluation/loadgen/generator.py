"""Many streams at once, to any server whose API is known, and when their tokens come back.

One thread waits on all the sockets and notes what it reads; that is parsed once all is over. The client so takes next to
nothing of the cores that it shares with the server, and the same of each server. Times are seconds of one clock.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol
from urllib.parse import urlsplit

import h11
from pydantic import ValidationError

from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Ask, Server, Written
from shared.errors import StreamError
from shared.protocol.sse import TimedBytes

LIMIT_S = 300.0
"""A server that says nothing for so long is not waited for."""
READ_BYTES = 65536
LATE_AFTER_READS = 8
"""A late request is sent once every other stream has been read from so often."""


class Together(Protocol):
    """Asks a server for several streams at once. Raises NotMeasured."""

    def __call__(self, server: Server, asks: Sequence[Ask], *, late: Ask | None = None) -> list[Written]:
        """The streams in order. With `late` that stream comes last: it is sent once the others write, which are cut off
        when it has ended.
        """


def together(server: Server, asks: Sequence[Ask], *, late: Ask | None = None) -> list[Written]:
    """`Together`, over sockets."""
    exchanges = [_Exchange(server, ask) for ask in asks]
    straggler = None if late is None else _Exchange(server, late)
    try:
        with ExitStack() as stack:
            _run(exchanges, straggler, stack)
    except OSError as error:
        raise _unreachable(server, error) from error
    return [exchange.written() for exchange in ([*exchanges, straggler] if straggler else exchanges)]


class Rolling(Protocol):
    """Asks a server for streams, so many at a time, the next as one ends. Raises NotMeasured."""

    def __call__(self, server: Server, asks: Sequence[Ask], at_once: int) -> list[Written]:
        """The streams in order."""


def rolling(server: Server, asks: Sequence[Ask], at_once: int) -> list[Written]:
    """`Rolling`, over sockets: a connection of its own for each stream."""
    exchanges = [_Exchange(server, ask) for ask in asks]
    waiting = iter(exchanges)
    try:
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())

            def begin() -> int:
                exchange = next(waiting, None)
                if exchange is None:
                    return 0
                exchange.connect(stack)
                exchange.send(selector)
                return 1

            under_way = sum(begin() for _ in range(at_once))
            while under_way:
                for exchange in _ready(selector):
                    if not exchange.read():
                        selector.unregister(exchange.socket)
                        under_way += begin() - 1
    except OSError as error:
        raise _unreachable(server, error) from error
    return [exchange.written() for exchange in exchanges]


def span_s(streams: Sequence[Written]) -> float:
    """From the first request to the end of the last stream."""
    return max(stream.end_s for stream in streams) - min(stream.sent_s for stream in streams)


def _run(exchanges: Sequence[_Exchange], late: _Exchange | None, stack: ExitStack) -> None:
    selector = stack.enter_context(selectors.DefaultSelector())
    for exchange in [*exchanges, *([late] if late else [])]:
        exchange.connect(stack)
    for exchange in exchanges:
        exchange.send(selector)
    waits = late
    left = len(exchanges) + (late is not None)
    while left:
        for exchange in _ready(selector):
            if not exchange.read():
                selector.unregister(exchange.socket)
                left -= 1
                if exchange is late:
                    return
        if waits and all(len(exchange.reads) >= LATE_AFTER_READS for exchange in exchanges):
            waits.send(selector)
            waits = None
        elif waits and left == 1:
            raise NotMeasured("the streams ended before the late one could be sent")


def _ready(selector: selectors.BaseSelector) -> list[_Exchange]:
    """Those that have something to read."""
    ready = selector.select(LIMIT_S)
    if not ready:
        raise TimeoutError(f"nothing came for {LIMIT_S:g} s")
    return [key.data for key, _ in ready]


def _unreachable(server: Server, error: OSError) -> NotMeasured:
    return NotMeasured(f"the {server.name} at {server.url}: {type(error).__name__} {error}")


class _Exchange:
    """A request on a connection of its own, and what was read of its answer."""

    def __init__(self, server: Server, ask: Ask) -> None:
        address = urlsplit(server.url)
        self._address = (address.hostname or "", address.port or 80)
        self._server = server
        self._http = h11.Connection(h11.CLIENT)
        self._request = http_request(self._http, server, ask)
        self.sent_s = 0.0
        self.reads: list[TimedBytes] = []

    def connect(self, stack: ExitStack) -> None:
        self.socket = stack.enter_context(socket.create_connection(self._address, timeout=LIMIT_S))

    def send(self, selector: selectors.BaseSelector) -> None:
        self.sent_s = time.perf_counter()
        self.socket.sendall(self._request)
        selector.register(self.socket, selectors.EVENT_READ, self)

    def read(self) -> bool:
        """Note what has come. Returns False at the end."""
        data = self.socket.recv(READ_BYTES)
        self.reads.append((time.perf_counter(), data))
        return bool(data)

    def written(self) -> Written:
        try:
            return self._server.api.written(self.sent_s, self._bodies())
        except (h11.RemoteProtocolError, ValidationError, StreamError) as error:
            raise NotMeasured(f"the {self._server.name} sent what is no stream of text: {error}") from error

    def _bodies(self) -> list[TimedBytes]:
        """The body's bytes without the framing. Raises NotMeasured for any status but 200."""
        status = 0
        bodies: list[TimedBytes] = []
        for at_s, data in self.reads:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    bodies.append((at_s, bytes(event.data)))
                elif isinstance(event, h11.ConnectionClosed):
                    break
        if status != 200:
            said = b"".join(data for _, data in bodies).decode(errors="replace")[:500]
            raise NotMeasured(f"the {self._server.name} answered {status or 'nothing'}: {said}")
        return bodies


def http_request(http: h11.Connection, server: Server, ask: Ask) -> bytes:
    """A request as it goes over a connection of its own."""
    body = json.dumps(server.api.body(ask, server.options)).encode()
    headers = {
        "host": urlsplit(server.url).netloc,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **server.headers,
    }
    head = h11.Request(method="POST", target=server.api.path, headers=list(headers.items()))
    parts = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)
