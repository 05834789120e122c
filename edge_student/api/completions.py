"""`POST /v1/completions`: raw text, continued by the student alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse

from edge_student.answering.choice import Finished, Part, PromptUsage, TextPart
from edge_student.answering.merge import merge
from edge_student.answering.request import AnswerRequest
from edge_student.api.completion_chunks import GrowingText, Token, joined
from edge_student.api.dependencies import TheEdge
from edge_student.api.requests import collect, parse_completion_request, stream
from edge_student.service import EdgeService
from shared.errors import Overloaded
from shared.protocol.guidance import Usage
from shared.protocol.openai_requests import CompletionRequest
from shared.protocol.openai_responses import CompletionUsage, TextChoice, TextCompletion
from shared.protocol.sse import encode_data

RETRY_S = 0.25
"""A batch under way looks so often whether the engine's queue has room for its next prompt."""

router = APIRouter(prefix="/v1")


@router.post("/completions", response_model=TextCompletion)
async def completions(body: CompletionRequest, request: Request, edge: TheEdge) -> EventSourceResponse | TextCompletion:
    """Continue text. Choices are numbered prompt by prompt, as OpenAI does."""
    answers = _Answers(await parse_completion_request(body, request, edge), body, edge)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream(answers.chunks(include_usage=usage), request)
    return answers.whole(await collect(answers.parts(), request))


class _Answers:
    """The answers to all prompts of a request, as one stream of parts with choices numbered across them."""

    def __init__(self, asks: list[AnswerRequest], body: CompletionRequest, edge: EdgeService) -> None:
        self._asks = asks
        self._body = body
        self._edge = edge
        self._id = f"cmpl-{asks[0].request_id}"
        self._created = int(time.time())
        self._logprobs = body.logprobs is not None
        self._texts = [self._text(at * ask.n + n, at) for at, ask in enumerate(asks) for n in range(ask.n)]
        self._at_once = asyncio.Semaphore(max(1, edge.settings.max_sequences // asks[0].n))
        self._begun = False

    async def parts(self) -> AsyncGenerator[Part, None]:
        async with aclosing(merge([self._of(at, ask) for at, ask in enumerate(self._asks)])) as parts:
            async for part in parts:
                yield part

    async def _of(self, at: int, ask: AnswerRequest) -> AsyncGenerator[Part, None]:
        """One prompt's answer, when its turn has come: a large batch does not fill the queue that others wait in too."""
        async with self._at_once:
            while True:
                try:
                    async with aclosing(self._edge.answering.answer(ask)) as parts:
                        async for part in parts:
                            self._begun = True
                            yield part if isinstance(part, Finished) else replace(part, index=at * ask.n + part.index)
                    return
                except Overloaded:
                    # Told at once, or never: what is computed already would be lost.
                    if not self._begun:
                        raise
                await asyncio.sleep(RETRY_S)

    def whole(self, parts: list[Part]) -> TextCompletion:
        chunks: list[list[TextChoice]] = [[] for _ in self._texts]
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        for part in parts:
            if isinstance(part, Finished):
                usage = _sum(usage, part.usage)
            else:
                chunks[part.index] += self._texts[part.index].chunks(part)
        choices = [joined(index, those, logprobs=self._logprobs) for index, those in enumerate(chunks)]
        return self._completion(choices, usage)

    async def chunks(self, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        options = self._body.stream_options
        so_far = usage if options and options.continuous_usage_stats else None
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                if isinstance(part, Finished):
                    usage = _sum(usage, part.usage)
                    continue
                if so_far:
                    so_far = _sum(so_far, _used(part))
                for choice in self._texts[part.index].chunks(part):
                    yield encode_data(self._completion([choice], so_far))
        if include_usage:
            yield encode_data(self._completion([], usage))

    def _text(self, index: int, at: int) -> GrowingText:
        make = partial(
            GrowingText,
            index,
            logprobs=self._logprobs,
            ids=self._body.return_token_ids,
            named_by_ids=self._body.return_tokens_as_token_ids,
        )
        if not self._body.echo:
            return make(echo="", prompt=())
        student = self._edge.ready_student()
        ask = self._asks[at]
        # Of what stands before the first score nothing is told; that has the token in front of it, for whose place it is.
        first = (ask.prompt_scores_from or 1) - 1
        tokens = [Token(student.piece(token), token) for token in ask.prompt[first:]]
        given = self._body.prompt
        one = given if isinstance(given, str) else given[at]
        echo = (
            one
            if isinstance(one, str) and not first
            else b"".join(token.bytes for token in tokens).decode(errors="replace")
        )
        return make(echo=echo, prompt=tokens)

    def _completion(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        counted = CompletionUsage.of(usage) if usage else None
        return TextCompletion(
            id=self._id, created=self._created, model=self._body.model, choices=choices, usage=counted
        )


def _used(part: Part) -> Usage:
    """What a part adds to the usage of the answer so far."""
    match part:
        case PromptUsage(prompt_tokens=prompt, cached_tokens=cached):
            return Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=0)
        case TextPart(token_ids=ids):
            return Usage(prompt_tokens=0, completion_tokens=len(ids))
    return Usage(prompt_tokens=0, completion_tokens=0)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )
