"""`POST /v1/completions`: raw text, continued by the student alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse

from edge_student.answering.choice import Finished, Part, PromptUsage, TextPart
from edge_student.answering.merge import merge
from edge_student.answering.request import AnswerRequest
from edge_student.api.completion_choice import CompletionChoiceBuilder, Token
from edge_student.api.completion_request import parse_completion_requests
from edge_student.api.dependencies import EdgeDep
from edge_student.api.streaming import stream
from edge_student.service import EdgeService
from edge_student.student import Student
from shared.errors import Overloaded
from shared.protocol.guidance import Usage
from shared.protocol.openai_requests import CompletionRequest
from shared.protocol.openai_responses import CompletionUsage, TextChoice, TextCompletion
from shared.protocol.sse import encode_data
from shared.server.app import cancel_on_disconnect

RETRY_S = 0.25
"""Interval at which the next prompt of a batch retries if the engine's queue is full."""

router = APIRouter(prefix="/v1")


@router.post("/completions", response_model=TextCompletion)
async def completions(body: CompletionRequest, request: Request, edge: EdgeDep) -> EventSourceResponse | TextCompletion:
    """Continue text. Choices are numbered prompt by prompt, as OpenAI does."""
    answers = _BatchAnswer(await parse_completion_requests(body, request, edge), body, edge)
    if body.stream:
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream(answers.chunks(include_usage=include_usage), request)
    return await cancel_on_disconnect(answers.completion(), request)


class _BatchAnswer:
    """The answers to all prompts of a request, as one stream of parts with choices numbered across them."""

    def __init__(self, requests: list[AnswerRequest], body: CompletionRequest, edge: EdgeService) -> None:
        self._requests = requests
        self._body = body
        self._edge = edge
        self._id = f"cmpl-{requests[0].request_id}"
        self._created = int(time.time())
        self._builders = [builder for at in range(len(requests)) for builder in self._builders_of(at)]
        self._running = asyncio.Semaphore(max(1, edge.settings.max_sequences // requests[0].n))
        self._started = False

    async def completion(self) -> TextCompletion:
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        async with aclosing(self._parts()) as parts:
            async for part in parts:
                if isinstance(part, Finished):
                    usage = _sum(usage, part.usage)
                else:
                    self._builders[part.index].add(part)
        return self._message([builder.assemble() for builder in self._builders], usage)

    async def chunks(self, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        usage = Usage(prompt_tokens=0, completion_tokens=0)
        options = self._body.stream_options
        usage_so_far = usage if options and options.continuous_usage_stats else None
        async with aclosing(self._parts()) as parts:
            async for part in parts:
                if isinstance(part, Finished):
                    usage = _sum(usage, part.usage)
                    continue
                if usage_so_far:
                    usage_so_far = _sum(usage_so_far, _usage_of(part))
                for choice in self._builders[part.index].chunks(part):
                    yield encode_data(self._message([choice], usage_so_far))
        if include_usage:
            yield encode_data(self._message([], usage))

    async def _parts(self) -> AsyncGenerator[Part, None]:
        async with aclosing(merge([self._answer(at) for at in range(len(self._requests))])) as parts:
            async for part in parts:
                yield part

    async def _answer(self, at: int) -> AsyncGenerator[Part, None]:
        """Answer one prompt when the engine has room for it: a large batch must not fill the queue that others wait in too."""
        request = self._requests[at]
        async with self._running:
            while True:
                try:
                    async with aclosing(self._edge.answering.answer(request)) as parts:
                        async for part in parts:
                            self._started = True
                            if not isinstance(part, Finished):
                                part = replace(part, index=at * request.n + part.index)
                            yield part
                    return
                except Overloaded:
                    # The client learns it before anything is computed or not at all: otherwise that work would be lost.
                    if not self._started:
                        raise
                await asyncio.sleep(RETRY_S)

    def _builders_of(self, at: int) -> list[CompletionChoiceBuilder]:
        """Make the builders of a prompt's choices."""
        request, body = self._requests[at], self._body
        echo, tokens = self._echo(at, self._edge.ready_student()) if body.echo else ("", [])
        return [
            CompletionChoiceBuilder(
                at * request.n + choice,
                echo=echo,
                prompt=tokens,
                logprobs=body.logprobs is not None,
                token_ids=body.return_token_ids,
                names_are_ids=body.return_tokens_as_token_ids,
            )
            for choice in range(request.n)
        ]

    def _echo(self, at: int, student: Student) -> tuple[str, list[Token]]:
        """Return the part of a prompt that the answer repeats, and its tokens."""
        request, given = self._requests[at], self._body.prompt
        # The first score needs the token in front of it, which marks its place in the text. Nothing before that is returned.
        first = (request.prompt_scores_from or 1) - 1
        tokens = [Token(student.piece(token), token) for token in request.prompt[first:]]
        prompt = given if isinstance(given, str) else given[at]
        if isinstance(prompt, str) and not first:
            return prompt, tokens
        return b"".join(token.bytes for token in tokens).decode(errors="replace"), tokens

    def _message(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        return TextCompletion(
            id=self._id,
            created=self._created,
            model=self._body.model,
            choices=choices,
            usage=CompletionUsage.of(usage) if usage else None,
        )


def _usage_of(part: Part) -> Usage:
    """Return what a part adds to the usage of the answer so far."""
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
