"""Parses the body of `POST /v1/chat/completions` into an `AnswerRequest`."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import Request

from edge_student.answering.request import AnswerRequest
from edge_student.api.options import choice_count, student_sampling
from edge_student.policy import rollout_bucket
from edge_student.service import EdgeService
from edge_student.student import Structure, Student
from edge_student.tools.tool_use import ToolUse, conversation, tool_use
from shared.errors import InvalidRequest
from shared.observability.telemetry import trace_headers
from shared.prompting.tokenize import tokenize_off_loop
from shared.protocol.openai_requests import ChatCompletionRequest
from shared.server.app import request_id


async def parse_chat_request(body: ChatCompletionRequest, request: Request, edge: EdgeService) -> AnswerRequest:
    """Return the request of a body. Raises InvalidRequest, UnknownModel, NotReady."""
    student = edge.ready_student()
    tools = tool_use(body)
    messages = conversation(body.messages, tools)
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs: requires logprobs to be true", param="top_logprobs")
    max_tokens = body.max_completion_tokens or body.max_tokens
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    prompt = await tokenize_off_loop(lambda: student.encode(messages), messages)
    structure = await _structure(body, tools, student)
    sampling = student_sampling(body, edge, prompt, max_tokens=max_tokens, top_logprobs=top_logprobs)
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
        n=choice_count(body, edge),
        tools=tools,
        headers=trace_headers(request.headers),
        cache_salt=body.cache_salt,
        model=body.model,
    )


async def _structure(body: ChatCompletionRequest, tools: ToolUse | None, student: Student) -> Structure | None:
    """Return the structure that the answer must have. Its grammar is compiled, so this runs off the event loop."""
    if tools:
        return await asyncio.to_thread(tools.structure, student)
    schema = body.response_format.schema_of_answer if body.response_format else None
    return None if schema is None else await asyncio.to_thread(student.structure, schema)
