"""A load generator: many streams at once, to any server whose API is known, and the arrival time of their bytes.

One thread waits on all sockets and stores what it reads; parsing starts when all streams have ended. The client takes almost no
time of the cores that it shares with the server, and the same for every server. Times are seconds of one clock.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from urllib.parse import urlsplit

import h11
from pydantic import ValidationError

from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Server, StreamRequest, StreamResult
from shared.errors import StreamError
from shared.protocol.sse import TimedBytes

LIMIT_S = 300.0
"""Longest silence of all streams of a server."""
READ_BYTES = 65536
STRAGGLER_AFTER_READS = 8
"""Reads of every other stream before the straggler is sent."""


StreamRunner = Callable[..., list[StreamResult]]
"""A function with the parameters of `run_streams`."""


def run_streams(
    server: Server,
    requests: Sequence[StreamRequest],
    *,
    concurrency: int | None = None,
    straggler: StreamRequest | None = None,
) -> list[StreamResult]:
    """Send requests to a server, each over its own connection, and return their streams in order. Raise NotMeasured.

    All requests run at once, or `concurrency` of them: then each stream that ends starts the next (a closed loop). The straggler
    is sent when the others are decoding; its end cuts them off. Its stream is the last of the list.
    """
    exchanges = [_Exchange(server, request) for request in requests]
    last = [_Exchange(server, straggler)] if straggler else []
    try:
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            _run(exchanges, last, concurrency or len(exchanges), stack, selector)
    except OSError as error:
        raise NotMeasured(f"the {server.name} at {server.url}: {type(error).__name__} {error}") from error
    return [exchange.result() for exchange in exchanges + last]


def span_s(streams: Sequence[StreamResult]) -> float:
    """Return the time from the first request to the end of the last stream."""
    return max(stream.end_s for stream in streams) - min(stream.sent_s for stream in streams)


def _run(
    exchanges: Sequence[_Exchange],
    straggler: Sequence[_Exchange],
    concurrency: int,
    stack: ExitStack,
    selector: selectors.BaseSelector,
) -> None:
    waiting, running = deque(exchanges[concurrency:]), min(concurrency, len(exchanges))
    for exchange in [*exchanges[:running], *straggler]:
        exchange.connect(stack)
    for exchange in exchanges[:running]:
        exchange.send(selector)
    unsent = list(straggler)
    while running:
        ready = selector.select(LIMIT_S)
        if not ready:
            raise TimeoutError(f"no stream sent anything for {LIMIT_S:g} s")
        for exchange in [key.data for key, _ in ready]:
            if exchange.read():
                continue
            selector.unregister(exchange.socket)
            running -= 1
            if exchange in straggler:
                return
            if waiting:
                waiting[0].connect(stack)
                waiting.popleft().send(selector)
                running += 1
        if unsent and all(len(exchange.reads) >= STRAGGLER_AFTER_READS for exchange in exchanges):
            unsent.pop().send(selector)
            running += 1
    if unsent:
        raise NotMeasured("the streams ended before the straggler could be sent")


class _Exchange:
    """A request on its own connection, and the bytes of the answer."""

    def __init__(self, server: Server, request: StreamRequest) -> None:
        address = urlsplit(server.url)
        self._address = (address.hostname or "", address.port or 80)
        self._server = server
        self._http = h11.Connection(h11.CLIENT)
        self._request = http_request(self._http, server, request)
        self.sent_s = 0.0
        self.reads: list[TimedBytes] = []

    def connect(self, stack: ExitStack) -> None:
        self.socket = stack.enter_context(socket.create_connection(self._address, timeout=LIMIT_S))

    def send(self, selector: selectors.BaseSelector) -> None:
        self.sent_s = time.perf_counter()
        self.socket.sendall(self._request)
        selector.register(self.socket, selectors.EVENT_READ, self)

    def read(self) -> bool:
        """Store the bytes that have arrived. Return False at the end of the connection."""
        data = self.socket.recv(READ_BYTES)
        self.reads.append((time.perf_counter(), data))
        return bool(data)

    def result(self) -> StreamResult:
        try:
            return self._server.api.parse(self.sent_s, self._bodies())
        except (h11.RemoteProtocolError, ValidationError, StreamError) as error:
            raise NotMeasured(f"the {self._server.name} sent no stream of text: {error}") from error

    def _bodies(self) -> list[TimedBytes]:
        """Return the body's bytes without HTTP framing. Raise NotMeasured for any status except 200."""
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
            body = b"".join(data for _, data in bodies).decode(errors="replace")[:500]
            raise NotMeasured(f"the {self._server.name} answered {status or 'nothing'}: {body}")
        return bodies


def http_request(http: h11.Connection, server: Server, request: StreamRequest) -> bytes:
    """Return the bytes of a request on its own connection."""
    body = json.dumps({**server.api.body(request), **server.options}).encode()
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
