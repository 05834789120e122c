"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse

from edge_student.answering.choice import ChoiceEnded, Finished, TextPart
from edge_student.answering.request import AnswerRequest
from edge_student.api.chat_choice import ChatChoiceBuilder
from edge_student.api.chat_request import parse_chat_request
from edge_student.api.dependencies import EdgeDep
from edge_student.api.streaming import stream
from edge_student.service import EdgeService
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.openai_requests import ChatCompletionRequest
from shared.protocol.openai_responses import (
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    CompletionUsage,
    Delta,
)
from shared.protocol.sse import encode_data
from shared.server.app import cancel_on_disconnect

router = APIRouter(prefix="/v1")


@router.post("/chat/completions", response_model=ChatCompletion)
async def chat_completions(
    body: ChatCompletionRequest, request: Request, edge: EdgeDep
) -> EventSourceResponse | ChatCompletion:
    """Answer a conversation, with the teacher's guidance if the policy asks for it."""
    answer_request = await parse_chat_request(body, request, edge)
    if body.stream:
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream(_chunks(answer_request, edge, include_usage=include_usage), request)
    return await cancel_on_disconnect(_completion(answer_request, edge), request)


async def _completion(request: AnswerRequest, edge: EdgeService) -> ChatCompletion:
    builders = _builders(request)
    finished: Finished | None = None
    async with aclosing(edge.answering.answer(request)) as parts:
        async for part in parts:
            match part:
                case TextPart() | ChoiceEnded():
                    builders[part.index].add(part)
                case Finished():
                    finished = part
    assert finished is not None  # noqa: S101 - `Finished` is always the last part
    logprobs = request.sampling.top_logprobs is not None
    return ChatCompletion(
        id=_completion_id(request),
        created=int(time.time()),
        model=request.model,
        choices=[builder.assemble(logprobs=logprobs) for builder in builders],
        usage=CompletionUsage.of(finished.usage),
        gkt=finished.report,
    )


async def _chunks(request: AnswerRequest, edge: EdgeService, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
    created = int(time.time())

    def chunk(
        choices: list[ChunkChoice], gkt: ChunkSource | GktReport | None = None, usage: CompletionUsage | None = None
    ) -> bytes:
        return encode_data(
            ChatCompletionChunk(
                id=_completion_id(request),
                created=created,
                model=request.model,
                choices=choices,
                gkt=gkt,
                usage=usage,
            )
        )

    builders = _builders(request)
    sources = [Source.STUDENT] * request.n
    last: ChunkChoice | None = None
    async with aclosing(edge.answering.answer(request)) as parts:
        # The roles are sent with the first part, not before: until then a failure still gets a status of its own.
        opened = False
        async for part in parts:
            if not opened:
                opened = True
                # If tool calls may replace the content there is none yet, as in OpenAI's own streams.
                delta = Delta(role="assistant", content=None if request.tools else "")
                for index in range(request.n):
                    yield chunk([ChunkChoice(index=index, delta=delta)])
            match part:
                case TextPart() | ChoiceEnded():
                    if isinstance(part, TextPart):
                        sources[part.index] = part.source
                    for choice in builders[part.index].chunks(part):
                        if not choice.finish_reason:
                            yield chunk([choice], ChunkSource(source=sources[part.index]))
                            continue
                        # The last chunk is sent with the report, because most clients expect choices in every chunk.
                        if last:
                            yield chunk([last])
                        last = choice
                case Finished():
                    yield chunk([last] if last else [], part.report)
                    if include_usage:
                        yield chunk([], usage=CompletionUsage.of(part.usage))


def _builders(request: AnswerRequest) -> list[ChatChoiceBuilder]:
    return [ChatChoiceBuilder(index, request.tools) for index in range(request.n)]


def _completion_id(request: AnswerRequest) -> str:
    return f"chatcmpl-{request.request_id}"
