"""`POST /v1/completions`: raw text, continued by the student alone."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse

from edge_student.answering import Ask, Finished, Part
from edge_student.choice import Ended, Piece
from edge_student.edge import Edge, TheEdge
from edge_student.merging import merge
from edge_student.requests import collect, stream, text_asks
from shared.openai import (
    AnswerEnd,
    CompletionRequest,
    CompletionUsage,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    TokenLogprob,
)
from shared.streams import encode_data
from shared.wire import Usage

router = APIRouter(prefix="/v1")


@router.post("/completions", response_model=TextCompletion)
async def completions(body: CompletionRequest, request: Request, edge: TheEdge) -> EventSourceResponse | TextCompletion:
    """Continue text. Choices are numbered prompt by prompt, as OpenAI does."""
    asks = text_asks(body, request, edge)
    echoes = [_echo(body, ask, index) for index, ask in enumerate(asks) for _ in range(ask.n)]
    answers = _Answers(asks, echoes, edge)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream(answers.chunks(body.model, include_usage=usage), request)
    parts = await collect(answers.parts(), request)
    return answers.whole(body.model, parts)


def _echo(body: CompletionRequest, ask: Ask, index: int) -> str:
    if not body.echo:
        return ""
    if isinstance(body.prompt, str):
        return body.prompt
    one = body.prompt[index]
    return one if isinstance(one, str) else ""


@dataclass
class _Text:
    text: str
    end: AnswerEnd | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)


class _Answers:
    """The answers to all prompts of a request, as one stream of parts with choices numbered across them."""

    def __init__(self, asks: list[Ask], echoes: list[str], edge: Edge) -> None:
        self._asks = asks
        self._echoes = echoes
        self._edge = edge
        self._id = f"cmpl-{asks[0].request_id}"
        self._created = int(time.time())
        self._wants_logprobs = asks[0].sampling.top_logprobs is not None

    async def parts(self) -> AsyncGenerator[Part, None]:
        async with aclosing(merge([self._of(at, ask) for at, ask in enumerate(self._asks)])) as parts:
            async for part in parts:
                yield part

    async def _of(self, at: int, ask: Ask) -> AsyncGenerator[Part, None]:
        first = at * ask.n
        async with aclosing(self._edge.answering.answer(ask)) as parts:
            async for part in parts:
                match part:
                    case Piece():
                        yield Piece(first + part.index, part.text, part.source, part.logprobs)
                    case Ended():
                        yield Ended(first + part.index, part.reason)
                    case Finished():
                        yield part

    def whole(self, model: str, parts: list[Part]) -> TextCompletion:
        texts = [_Text(echo) for echo in self._echoes]
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        for part in parts:
            match part:
                case Piece():
                    texts[part.index].text += part.text
                    texts[part.index].logprobs += part.logprobs
                case Ended():
                    texts[part.index].end = part.reason
                case Finished():
                    usage = _sum(usage, part.usage)
        choices = [
            TextChoice(index=index, text=t.text, finish_reason=t.end, logprobs=self._columns(t.logprobs))
            for index, t in enumerate(texts)
        ]
        return self._completion(model, choices, usage)

    async def chunks(self, model: str, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        for index, echo in enumerate(self._echoes):
            if echo:
                yield encode_data(self._completion(model, [TextChoice(index=index, text=echo, finish_reason=None)]))
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                match part:
                    case Piece():
                        columns = self._columns(list(part.logprobs))
                        choice = TextChoice(index=part.index, text=part.text, finish_reason=None, logprobs=columns)
                        yield encode_data(self._completion(model, [choice]))
                    case Ended():
                        choice = TextChoice(index=part.index, text="", finish_reason=part.reason)
                        yield encode_data(self._completion(model, [choice]))
                    case Finished():
                        usage = _sum(usage, part.usage)
        if include_usage:
            yield encode_data(self._completion(model, [], usage))

    def _completion(self, model: str, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        counted = CompletionUsage.of(usage) if usage else None
        return TextCompletion(id=self._id, created=self._created, model=model, choices=choices, usage=counted)

    def _columns(self, entries: list[TokenLogprob]) -> TextLogprobs | None:
        if not self._wants_logprobs:
            return None
        offsets, at = [], 0
        for entry in entries:
            offsets.append(at)
            at += len(entry.token)
        return TextLogprobs(
            tokens=[entry.token for entry in entries],
            token_logprobs=[entry.logprob for entry in entries],
            top_logprobs=[{top.token: top.logprob for top in entry.top_logprobs} for entry in entries],
            text_offset=offsets,
        )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )
