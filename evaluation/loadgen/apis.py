"""The APIs that streams are measured over: what is sent, and how what comes back is read. Times are seconds of one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from evaluation.figures import NotMeasured
from shared.errors import StreamBroken
from shared.protocol.guidance import Done, Failure, FinishReason, Guidance
from shared.protocol.sse import TimedBytes, decode_recorded, timed_events

MODEL = "gkt-student"
"""The student alone, at our edge. Servers with one model take any name."""


@dataclass(frozen=True)
class Ask:
    """Text to continue, or a question to answer, greedily."""

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


class Api(Protocol):
    @property
    def path(self) -> str: ...

    def body(self, ask: Ask, options: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of a request. `options` are the fields that a server needs besides."""

    def written(self, sent_s: float, bodies: Sequence[TimedBytes]) -> Written:
        """Raises NotMeasured for a stream that broke off, pydantic's ValidationError for what is none."""


class Completions:
    """OpenAI's text completions."""

    path = "/v1/completions"

    def body(self, ask: Ask, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": MODEL, "prompt": ask.prompt, **_openai(ask), **options}

    def written(self, sent_s: float, bodies: Sequence[TimedBytes]) -> Written:
        return _of_openai(sent_s, bodies)


class Chat:
    """OpenAI's chat completions, of one user message."""

    path = "/v1/chat/completions"

    def body(self, ask: Ask, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": ask.prompt}], **_openai(ask), **options}

    def written(self, sent_s: float, bodies: Sequence[TimedBytes]) -> Written:
        return _of_openai(sent_s, bodies)


class GuidanceApi:
    """Guidance, straight from a cloud."""

    path = "/v1/guidance"

    def body(self, ask: Ask, options: Mapping[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": ask.prompt}]
        return {"messages": messages, "max_guidance_tokens": ask.max_tokens, **options}

    def written(self, sent_s: float, bodies: Sequence[TimedBytes]) -> Written:
        times: list[float] = []
        done: Done | None = None
        end_s = sent_s
        try:
            for end_s, event in decode_recorded(bodies):
                match event:
                    case Guidance(text=text) if text:
                        times.append(end_s)
                    case Done():
                        done = event
                    case Failure():
                        raise NotMeasured(f"a stream broke off: {event.message}")
        except StreamBroken:
            pass
        if done is None:
            return Written(sent_s, times, end_s, None)
        finish = "length" if done.finish_reason is FinishReason.BUDGET else str(done.finish_reason)
        return Written(sent_s, times, end_s, finish, done.usage.prompt_tokens, done.usage.completion_tokens)


@dataclass(frozen=True)
class Server:
    """What is measured. `options` are the fields that its requests need besides its API's own."""

    name: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    api: Api = field(default_factory=Completions)
    key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def _openai(ask: Ask) -> dict[str, Any]:
    usage = {"include_usage": True}
    return {"max_tokens": ask.max_tokens, "temperature": 0, "stream": True, "stream_options": usage}


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    """Of either kind of completion."""

    text: str = ""
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Chunk(BaseModel):
    """What is wanted of a chunk. Every server has fields of its own besides."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


def _of_openai(sent_s: float, bodies: Sequence[TimedBytes]) -> Written:
    times: list[float] = []
    finish: str | None = None
    usage: _Usage | None = None
    end_s = sent_s
    for end_s, event in timed_events(bodies):
        if event.data == "[DONE]":
            continue
        chunk = _Chunk.model_validate_json(event.data)
        if chunk.error is not None:
            raise NotMeasured(f"a stream broke off: {str(chunk.error)[:500]}")
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.text or choice.delta.content:
                times.append(end_s)
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
    return Written(sent_s, times, end_s, finish, prompt, completion)
