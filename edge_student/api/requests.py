"""From OpenAI's request bodies to an `AnswerRequest`, and what holds for the HTTP side of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from fastapi import Request
from fastapi.sse import EventSourceResponse

from edge_student.answering.choice import Part
from edge_student.answering.request import AnswerRequest
from edge_student.policy import rollout_bucket
from edge_student.service import EdgeService
from edge_student.student import Structure, Student, StudentSampling
from edge_student.tools.tool_use import ToolUse, conversation, tool_use
from shared.errors import GktError, InternalError, InvalidRequest, PromptTooLong
from shared.observability.telemetry import trace_headers
from shared.prompting.tokenize import tokenize_off_loop
from shared.protocol.gkt import GktOptions, Mode
from shared.protocol.openai_requests import ChatCompletionRequest, CompletionOptions, CompletionRequest
from shared.protocol.sse import OPENAI_DONE, encode_data, with_first
from shared.server.app import cancel_on_disconnect, error_body, request_id

MAX_PROMPTS = 512
"""Of one request. They take turns at the engine, so this bounds the size of an answer only."""
MAX_ECHOED_LOGPROBS = 1_000_000
"""Of one request: they are all kept until the answer is sent."""


async def parse_chat_request(body: ChatCompletionRequest, request: Request, edge: EdgeService) -> AnswerRequest:
    """Raises InvalidRequest, UnknownModel, NotReady."""
    student = edge.ready_student()
    tools = tool_use(body)
    messages = conversation(body.messages, tools)
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs: needs logprobs to be true", param="top_logprobs")
    max_tokens = body.max_completion_tokens or body.max_tokens
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    prompt = await tokenize_off_loop(
        lambda: student.encode(messages), messages
    )  # only tokens tell whether a text is too long
    structure = await _structure(body, tools, student)
    sampling = _sampling(body, edge, prompt, max_tokens=max_tokens, top_logprobs=top_logprobs)
    return AnswerRequest(
        request_id=request_id(request),
        prompt=prompt,
        messages=messages,
        policy=edge.policies.resolve(
            body.model,
            body.gkt,
            max_tokens=max_tokens,
            structured=structure is not None,
            bucket=partial(rollout_bucket, prompt, body.seed),
        ),
        sampling=sampling.model_copy(update={"structure": structure}),
        max_tokens=max_tokens,
        stops=tuple(body.stop or ()),
        n=_choices(body, edge),
        tools=tools,
        headers=trace_headers(request.headers),
        cache_salt=body.cache_salt,
        model=body.model,
    )


async def _structure(body: ChatCompletionRequest, tools: ToolUse | None, student: Student) -> Structure | None:
    """Off the event loop: a grammar is compiled in it."""
    if tools:
        return await asyncio.to_thread(tools.structure, student)
    schema = body.response_format.schema_of_answer if body.response_format else None
    return None if schema is None else await asyncio.to_thread(student.structure, schema)


async def parse_completion_request(body: CompletionRequest, request: Request, edge: EdgeService) -> list[AnswerRequest]:
    """One ask for each prompt of the body. Raises InvalidRequest, UnknownModel, NotReady."""
    student = edge.ready_student()
    prompt_scores_from = max(1, body.logprob_start_len or 1) if body.echo and body.logprobs is not None else None
    if body.logprob_start_len is not None and prompt_scores_from is None:
        raise InvalidRequest("logprob_start_len: needs echo and logprobs", param="logprob_start_len")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("max_tokens: 0 is for echo, which needs no answer", param="max_tokens")
    if edge.policies.resolve(body.model).mode == Mode.TEACHER:
        raise InvalidRequest("model: the teacher takes conversations only; use /v1/chat/completions", param="model")
    return [
        AnswerRequest(
            request_id=request_id(request),
            prompt=prompt,
            messages=None,
            policy=edge.policies.resolve(body.model, GktOptions(mode=Mode.OFF)),
            sampling=_sampling(body, edge, prompt, max_tokens=body.max_tokens, top_logprobs=body.logprobs),
            stops=tuple(body.stop or ()),
            n=_choices(body, edge),
            prompt_scores_from=prompt_scores_from,
            include_stop=body.include_stop_str_in_output,
            prompt_usage_first=body.stream_options is not None and body.stream_options.continuous_usage_stats,
            headers=trace_headers(request.headers),
            cache_salt=body.cache_salt,
            model=body.model,
        )
        for prompt in await asyncio.to_thread(_prompts, body, student)
    ]


def _prompts(body: CompletionRequest, student: Student) -> list[list[int]]:
    """Token ids of the prompts. All are looked at before one is computed."""
    prompts = _tokenized(body, student)
    for prompt in prompts:
        if not prompt:
            raise InvalidRequest("prompt: may not be empty", param="prompt")
        if len(prompt) >= student.context_tokens:
            raise PromptTooLong(
                f"prompt: one has {len(prompt)} tokens; the context of {student.model} has {student.context_tokens}, "
                "and one is needed for the answer",
                param="prompt",
            )
    start = body.logprob_start_len
    if start is not None and start >= min(map(len, prompts)):
        raise InvalidRequest(
            f"logprob_start_len: {start} is behind the end of a prompt of {min(map(len, prompts))} tokens",
            param="logprob_start_len",
        )
    if body.echo and body.logprobs is not None:
        columns = sum(map(len, prompts)) * (body.n or 1) * (body.logprobs + 1)
        if columns > MAX_ECHOED_LOGPROBS:
            raise InvalidRequest(
                f"prompt: echo would give {columns} log-probabilities; {MAX_ECHOED_LOGPROBS} is the most",
                param="prompt",
            )
    return prompts


def _tokenized(body: CompletionRequest, student: Student) -> list[list[int]]:
    match body.prompt:
        case str(text):
            return [student.tokenize(text)]
        case []:
            raise InvalidRequest("prompt: may not be empty", param="prompt")
        case [int(), *_] as ids:
            student.check_tokens(ids)  # type: ignore[arg-type]
            return [list(ids)]  # type: ignore[arg-type]
        case many:
            if len(many) > MAX_PROMPTS:
                raise InvalidRequest(f"prompt: {MAX_PROMPTS} prompts at most", param="prompt")
            prompts = []
            for one in many:
                if isinstance(one, str):
                    prompts.append(student.tokenize(one))
                elif isinstance(one, list):
                    student.check_tokens(one)
                    prompts.append(one)
            return prompts


def _sampling(
    body: CompletionOptions, edge: EdgeService, prompt: list[int], *, max_tokens: int | None, top_logprobs: int | None
) -> StudentSampling:
    student = edge.ready_student()
    bias = tuple((int(token), value) for token, value in (body.logit_bias or {}).items())
    student.check_tokens([token for token, _ in bias], param="logit_bias")
    return StudentSampling(
        **body.sampling_params(edge.settings.default_temperature).model_dump(),
        max_tokens=max(1, student.context_tokens - len(prompt)) if max_tokens is None else max_tokens,
        typical_p=1.0 if body.typical_p is None else body.typical_p,
        logit_bias=bias,
        top_logprobs=top_logprobs,
    )


def _choices(body: CompletionOptions, edge: EdgeService) -> int:
    n = body.n or 1
    limit = min(edge.settings.max_choices, edge.settings.max_sequences)
    if n > limit:
        raise InvalidRequest(f"n: {n} choices were asked for; {limit} is the most", param="n")
    return n


async def collect(parts: AsyncGenerator[Part, None], request: Request) -> list[Part]:
    """All parts of an answer. Raises what the answer raises, and ClientDisconnected."""

    async def read() -> list[Part]:
        async with aclosing(parts):
            return [part async for part in parts]

    return await cancel_on_disconnect(read(), request)


async def stream(chunks: AsyncGenerator[bytes, None], request: Request) -> EventSourceResponse:
    """Answer with server-sent events. What fails before the first of them is raised, so that it gets its own status."""
    try:
        first = await cancel_on_disconnect(anext(chunks), request)
    except BaseException:
        await chunks.aclose()
        raise
    return EventSourceResponse(with_first(first, _until_error(chunks)), headers={"cache-control": "no-cache"})


async def _until_error(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The rest of a stream and its end mark; or an error in OpenAI's shape and no end mark."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
        yield OPENAI_DONE
    except GktError as error:
        yield encode_data(error_body(error))
    except Exception:
        yield encode_data(error_body(InternalError("something went wrong here; the answer is not complete")))
        raise
