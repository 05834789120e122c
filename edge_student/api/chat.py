"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI has them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse

from edge_student.answering.choice import ChoiceEnded, Finished, Part, TextPart
from edge_student.answering.request import AnswerRequest
from edge_student.api.chat_chunks import GrowingMessage, joined
from edge_student.api.dependencies import TheEdge
from edge_student.api.requests import collect, parse_chat_request, stream
from edge_student.policy import MODEL_MODES
from edge_student.service import EdgeService
from shared.errors import UnknownModel
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.openai_requests import ChatCompletionRequest
from shared.protocol.openai_responses import (
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    CompletionUsage,
    Delta,
    ModelCard,
    ModelList,
)
from shared.protocol.sse import encode_data

router = APIRouter(prefix="/v1")


@router.post("/chat/completions", response_model=ChatCompletion)
async def chat_completions(
    body: ChatCompletionRequest, request: Request, edge: TheEdge
) -> EventSourceResponse | ChatCompletion:
    """Answer a conversation, with the teacher's guidance where the plan says so."""
    ask = await parse_chat_request(body, request, edge)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream(_chunks(ask, body.model, edge, include_usage=usage), request)
    parts = await collect(edge.answering.answer(ask), request)
    return _completion(ask, body.model, parts)


@router.get("/models")
async def models(edge: TheEdge) -> ModelList:
    return ModelList(data=[_card(name, edge) for name in MODEL_MODES])


@router.get("/models/{name}")
async def model(name: str, edge: TheEdge) -> ModelCard:
    if name not in MODEL_MODES:
        raise UnknownModel(f"there is no model {name!r}; there are {', '.join(MODEL_MODES)}", param="model")
    return _card(name, edge)


def _card(name: str, edge: EdgeService) -> ModelCard:
    return ModelCard(id=name, created=edge.started)


def _completion(ask: AnswerRequest, model: str, parts: Sequence[Part]) -> ChatCompletion:
    messages = [GrowingMessage(index, ask.tools) for index in range(ask.n)]
    chunks: list[list[ChunkChoice]] = [[] for _ in messages]
    report: GktReport | None = None
    usage: CompletionUsage | None = None
    for part in parts:
        match part:
            case TextPart() | ChoiceEnded():
                chunks[part.index] += messages[part.index].chunks(part)
            case Finished():
                report, usage = part.report, CompletionUsage.of(part.usage)
    assert report is not None and usage is not None  # noqa: S101, PT018 - `Finished` is always the last part
    wanted = ask.sampling.top_logprobs is not None
    return ChatCompletion(
        id=f"chatcmpl-{ask.request_id}",
        created=int(time.time()),
        model=model,
        choices=[joined(index, those, logprobs=wanted) for index, those in enumerate(chunks)],
        usage=usage,
        gkt=report,
    )


async def _chunks(
    ask: AnswerRequest, model: str, edge: EdgeService, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    created = int(time.time())

    def chunk(
        choices: list[ChunkChoice], gkt: ChunkSource | GktReport | None = None, usage: CompletionUsage | None = None
    ) -> bytes:
        return encode_data(
            ChatCompletionChunk(
                id=f"chatcmpl-{ask.request_id}", created=created, model=model, choices=choices, gkt=gkt, usage=usage
            )
        )

    messages = [GrowingMessage(index, ask.tools) for index in range(ask.n)]
    sources = [Source.STUDENT] * ask.n
    last: ChunkChoice | None = None
    async with aclosing(edge.answering.answer(ask)) as parts:
        # The roles go first, but not before the answer is known to begin: until then a failure is a status.
        opened = False
        async for part in parts:
            if not opened:
                opened = True
                # Where calls may come instead of it there is no content yet, as in OpenAI's own streams.
                delta = Delta(role="assistant", content=None if ask.tools else "")
                for index in range(ask.n):
                    yield chunk([ChunkChoice(index=index, delta=delta)])
            match part:
                case TextPart() | ChoiceEnded():
                    if isinstance(part, TextPart):
                        sources[part.index] = part.source
                    for choice in messages[part.index].chunks(part):
                        if not choice.finish_reason:
                            yield chunk([choice], ChunkSource(source=sources[part.index]))
                            continue
                        # The last one waits for the report: a chunk without choices would be news to most clients.
                        if last:
                            yield chunk([last])
                        last = choice
                case Finished():
                    yield chunk([last] if last else [], part.report)
                    if include_usage:
                        yield chunk([], usage=CompletionUsage.of(part.usage))
