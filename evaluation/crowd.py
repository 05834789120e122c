"""Many streams at once: raw text to `/v1/completions` of any server that has it, and when its tokens come back.

One thread waits on all the sockets and notes what it reads; that is parsed once all is over. The client so takes next to
nothing of the cores that it shares with the server, and the same of each server. Times are seconds of one clock.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import h11
from pydantic import BaseModel, ValidationError

from evaluation.figures import NotMeasured
from evaluation.timeline import Read, events

LIMIT_S = 300.0
"""A server that says nothing for so long is not waited for."""
READ_BYTES = 65536
LATE_AFTER_READS = 8
"""A late request is sent once every other stream has been read from so often."""
MODEL = "gkt-student"
"""The student alone, at our edge. Servers with one model take any name."""


@dataclass(frozen=True)
class Server:
    """What is measured. `options` are the fields that its requests need besides OpenAI's."""

    name: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """Text to continue greedily."""

    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class Written:
    """A stream: when it was asked for, when each piece of text came, and its end. `finish` is None where it was cut off."""

    sent_s: float
    times: Sequence[float]
    end_s: float
    finish: str | None
    prompt_tokens: int | None = None
    """None where the server doesn't say."""
    completion_tokens: int | None = None

    @property
    def first_s(self) -> float:
        if not self.times:
            raise NotMeasured("a stream has no text")
        return self.times[0]

    def full(self, ask: Ask) -> bool:
        """Whether all the tokens were written that it was asked for."""
        return self.finish == "length" and self.completion_tokens in {None, ask.max_tokens}


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
        raise NotMeasured(f"the {server.name} at {server.url}: {type(error).__name__} {error}") from error
    return [exchange.written() for exchange in ([*exchanges, straggler] if straggler else exchanges)]


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
        ready = selector.select(LIMIT_S)
        if not ready:
            raise TimeoutError(f"nothing came for {LIMIT_S:g} s")
        for key, _ in ready:
            exchange = key.data
            if not exchange.read():
                selector.unregister(key.fileobj)
                left -= 1
                if exchange is late:
                    return
        if waits and all(len(exchange.reads) >= LATE_AFTER_READS for exchange in exchanges):
            waits.send(selector)
            waits = None
        elif waits and left == 1:
            raise NotMeasured("the streams ended before the late one could be sent")


class _Exchange:
    """A request on a connection of its own, and what was read of its answer."""

    def __init__(self, server: Server, ask: Ask) -> None:
        address = urlsplit(server.url)
        self._address = (address.hostname or "", address.port or 80)
        self._server = server
        self._http = h11.Connection(h11.CLIENT)
        self._request = _request(self._http, address.netloc, _body(server, ask))
        self.sent_s = 0.0
        self.reads: list[Read] = []

    def connect(self, stack: ExitStack) -> None:
        self._socket = stack.enter_context(socket.create_connection(self._address, timeout=LIMIT_S))

    def send(self, selector: selectors.BaseSelector) -> None:
        self.sent_s = time.perf_counter()
        self._socket.sendall(self._request)
        selector.register(self._socket, selectors.EVENT_READ, self)

    def read(self) -> bool:
        """Note what has come. Returns False at the end."""
        data = self._socket.recv(READ_BYTES)
        self.reads.append((time.perf_counter(), data))
        return bool(data)

    def written(self) -> Written:
        try:
            return _written(self.sent_s, self._bodies())
        except (h11.RemoteProtocolError, ValidationError, UnicodeDecodeError) as error:
            raise NotMeasured(f"the {self._server.name} sent what is no stream of text: {error}") from error

    def _bodies(self) -> list[Read]:
        """The body's bytes without the framing. Raises NotMeasured for any status but 200."""
        status = 0
        bodies: list[Read] = []
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


def _body(server: Server, ask: Ask) -> bytes:
    fields = {
        "model": MODEL,
        "prompt": ask.prompt,
        "max_tokens": ask.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **server.options,
    }
    return json.dumps(fields).encode()


def _request(http: h11.Connection, host: str, body: bytes) -> bytes:
    headers = {
        "host": host,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    head = h11.Request(method="POST", target="/v1/completions", headers=list(headers.items()))
    parts = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)


class _Choice(BaseModel):
    text: str = ""
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Chunk(BaseModel):
    """What is wanted of a chunk. Every server has fields of its own besides."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


def _written(sent_s: float, bodies: Sequence[Read]) -> Written:
    times: list[float] = []
    finish: str | None = None
    usage: _Usage | None = None
    end_s = sent_s
    for event in events(bodies):
        end_s = event.at_s
        if event.data == "[DONE]":
            continue
        chunk = _Chunk.model_validate_json(event.data)
        if chunk.error is not None:
            raise NotMeasured(f"a stream broke off: {str(chunk.error)[:500]}")
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.text:
                times.append(event.at_s)
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
    return Written(sent_s, times, end_s, finish, prompt, completion)
