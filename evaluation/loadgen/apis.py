"""APIs that streams are measured over: the body of a request, and the parser of its stream. Times are seconds of one clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from evaluation.figures import NotMeasured
from evaluation.loadgen.timeline import parse_guidance
from shared.protocol.guidance import FinishReason
from shared.protocol.sse import TimedBytes, timed_events

MODEL = "gkt-student"
"""The model of our edge that answers without the cloud. Servers with one model accept any name."""


@dataclass(frozen=True)
class StreamRequest:
    """Text to continue, or a question to answer, with greedy decoding."""

    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class StreamResult:
    """Times of a stream: the request, each piece of text, the end. `finish` is None if the stream was cut off."""

    sent_s: float
    times: Sequence[float]
    end_s: float
    finish: str | None
    prompt_tokens: int | None = None
    """None if the server does not report usage."""
    completion_tokens: int | None = None

    @property
    def first_s(self) -> float:
        if not self.times:
            raise NotMeasured("a stream has no text")
        return self.times[0]

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.sent_s

    def is_complete(self, request: StreamRequest) -> bool:
        """Return True if the stream has all the tokens that were requested."""
        return self.finish == "length" and self.completion_tokens in {None, request.max_tokens}


@dataclass(frozen=True)
class Api:
    """A streaming HTTP API.

    `parse` takes the time of the request and the bytes of the response body. It raises NotMeasured for a stream that failed, and
    pydantic's ValidationError for one that is not of this API.
    """

    path: str
    body: Callable[[StreamRequest], dict[str, Any]]
    parse: Callable[[float, Sequence[TimedBytes]], StreamResult]


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    """A choice of a text completion (`text`) or a chat completion (`delta`)."""

    text: str = ""
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Chunk(BaseModel):
    """The fields of a chunk that all servers have. Every server adds its own."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


def _parse_openai(sent_s: float, reads: Sequence[TimedBytes]) -> StreamResult:
    times: list[float] = []
    finish: str | None = None
    usage: _Usage | None = None
    end_s = sent_s
    for end_s, event in timed_events(reads):
        if event.data == "[DONE]":
            continue
        chunk = _Chunk.model_validate_json(event.data)
        if chunk.error is not None:
            raise NotMeasured(f"a stream failed: {str(chunk.error)[:500]}")
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.text or choice.delta.content:
                times.append(end_s)
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
    return StreamResult(sent_s, times, end_s, finish, prompt, completion)


def _parse_guidance(sent_s: float, reads: Sequence[TimedBytes]) -> StreamResult:
    stream = parse_guidance(reads)
    times = [at_s for at_s, guidance in stream.guidance if guidance.text]
    end_s = max(sent_s, stream.end_s)
    if stream.done is None:
        return StreamResult(sent_s, times, end_s, None)
    finish = "length" if stream.done.finish_reason is FinishReason.BUDGET else str(stream.done.finish_reason)
    usage = stream.done.usage
    return StreamResult(sent_s, times, end_s, finish, usage.prompt_tokens, usage.completion_tokens)


def _openai_body(request: StreamRequest, **fields: Any) -> dict[str, Any]:
    usage = {"include_usage": True}
    return {"max_tokens": request.max_tokens, "temperature": 0, "stream": True, "stream_options": usage, **fields}


def _messages(request: StreamRequest) -> list[dict[str, str]]:
    return [{"role": "user", "content": request.prompt}]


COMPLETIONS = Api("/v1/completions", lambda r: _openai_body(r, model=MODEL, prompt=r.prompt), _parse_openai)
CHAT = Api("/v1/chat/completions", lambda r: _openai_body(r, messages=_messages(r)), _parse_openai)
GUIDANCE = Api(
    "/v1/guidance", lambda r: {"messages": _messages(r), "max_guidance_tokens": r.max_tokens}, _parse_guidance
)


@dataclass(frozen=True)
class Server:
    """A server under load. `options` are additional fields of its requests."""

    name: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    api: Api = COMPLETIONS
    key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}
