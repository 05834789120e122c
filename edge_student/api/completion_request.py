"""Parses the body of `POST /v1/completions` into one `AnswerRequest` per prompt."""

from __future__ import annotations

import asyncio

from fastapi import Request

from edge_student.answering.request import AnswerRequest
from edge_student.api.options import choice_count, student_sampling
from edge_student.service import EdgeService
from edge_student.student import Student
from shared.errors import InvalidRequest, PromptTooLong
from shared.observability.telemetry import trace_headers
from shared.protocol.gkt import GktOptions, Mode
from shared.protocol.openai_requests import CompletionRequest
from shared.server.app import request_id

MAX_PROMPTS = 512
"""Most prompts of one request. They take turns at the engine, so this limits only the size of an answer."""
MAX_ECHOED_LOGPROBS = 1_000_000
"""Most log-probabilities of echoed prompts in one answer. All of them are in memory until the answer is sent."""


async def parse_completion_requests(
    body: CompletionRequest, request: Request, edge: EdgeService
) -> list[AnswerRequest]:
    """Return one request for each prompt of the body. Raises InvalidRequest, PromptTooLong, UnknownModel, NotReady."""
    student = edge.ready_student()
    prompt_scores_from = max(1, body.logprob_start_len or 1) if body.echo and body.logprobs is not None else None
    if body.logprob_start_len is not None and prompt_scores_from is None:
        raise InvalidRequest("logprob_start_len: requires echo and logprobs", param="logprob_start_len")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("max_tokens: 0 is accepted only with echo", param="max_tokens")
    if edge.policies.resolve(body.model).mode == Mode.TEACHER:
        raise InvalidRequest(
            f"model: {body.model!r} does not support raw text; use /v1/chat/completions", param="model"
        )
    return [
        AnswerRequest(
            request_id=request_id(request),
            prompt=prompt,
            messages=None,
            policy=edge.policies.resolve(body.model, GktOptions(mode=Mode.OFF)),
            sampling=student_sampling(body, edge, prompt, max_tokens=body.max_tokens, top_logprobs=body.logprobs),
            stops=tuple(body.stop or ()),
            n=choice_count(body, edge),
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
    """Tokenize and check all prompts, before any of them is computed."""
    prompts = _tokenize(body, student)
    for prompt in prompts:
        if not prompt:
            raise InvalidRequest("prompt: must not be empty", param="prompt")
        if len(prompt) >= student.context_tokens:
            raise PromptTooLong(
                f"prompt: {len(prompt)} tokens; the context of {student.model} has {student.context_tokens}, "
                "one of them for the answer",
                param="prompt",
            )
    shortest = min(map(len, prompts))
    if (start := body.logprob_start_len) is not None and start >= shortest:
        raise InvalidRequest(
            f"logprob_start_len: {start} is beyond the end of a prompt of {shortest} tokens", param="logprob_start_len"
        )
    if body.echo and body.logprobs is not None:
        columns = sum(map(len, prompts)) * (body.n or 1) * (body.logprobs + 1)
        if columns > MAX_ECHOED_LOGPROBS:
            raise InvalidRequest(
                f"prompt: echo would return {columns} log-probabilities; at most {MAX_ECHOED_LOGPROBS} are allowed",
                param="prompt",
            )
    return prompts


def _tokenize(body: CompletionRequest, student: Student) -> list[list[int]]:
    match body.prompt:
        case str(text):
            return [student.tokenize(text)]
        case []:
            raise InvalidRequest("prompt: must not be empty", param="prompt")
        case [int(), *_] as ids:
            student.check_tokens(ids)  # type: ignore[arg-type]
            return [list(ids)]  # type: ignore[arg-type]
        case many:
            if len(many) > MAX_PROMPTS:
                raise InvalidRequest(f"prompt: {len(many)} prompts; at most {MAX_PROMPTS} are allowed", param="prompt")
            prompts = []
            for one in many:
                if isinstance(one, str):
                    prompts.append(student.tokenize(one))
                elif isinstance(one, list):
                    student.check_tokens(one)
                    prompts.append(one)
            return prompts
