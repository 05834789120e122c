"""Preparing a job for one teacher: rendered, encoded, measured."""

from __future__ import annotations

import asyncio

from cloud_teacher.accounting.usage import UsageRecorder
from cloud_teacher.guidance.attempt import Attempt
from cloud_teacher.guidance.job import GuidanceJob
from cloud_teacher.teachers.base import Prompt
from cloud_teacher.teachers.pool import PooledTeacher
from shared.errors import PromptTooLong
from shared.prompting.tokenize import tokenize_off_loop
from shared.protocol.guidance import GuidanceRequest, ReviewRequest, Usage

RETOKENIZATION_TOKENS = 16
"""Allowance for an answer that is cut and tokenized again, which may take a few more tokens."""


async def prepare(
    job: GuidanceJob, pooled: PooledTeacher, recorder: UsageRecorder, *, engine_id: str, max_prompt_tokens: int
) -> Attempt:
    """Prepare a job for a teacher of the pool.

    Raises what `PooledTeacher.acquire` raises, InvalidRequest, Unsupported, and PromptTooLong if the prompt is beyond the limit
    or leaves no room for a token.
    """
    teacher, request = pooled.acquire(), job.request
    if request.json_schema is not None:
        await asyncio.to_thread(teacher.check_schema, request.json_schema)
    messages = job.template.apply(request.messages)
    reviewer = teacher.reviewer() if isinstance(request, ReviewRequest) else None
    draft_text = request.answer + request.draft if isinstance(request, ReviewRequest) else None

    def encode() -> tuple[Prompt, list[int] | None]:
        reviewed = reviewer.encode_answer(draft_text) if reviewer and draft_text is not None else None
        return teacher.encode(messages, request.answer), reviewed

    prompt, reviewed = await tokenize_off_loop(encode, messages, draft_text or request.answer)
    limit = min(max_prompt_tokens, teacher.max_model_len - 1)
    if prompt.tokens > limit:
        raise PromptTooLong(f"the prompt has {prompt.tokens} tokens; the limit is {limit}", param="messages")
    scored = 0 if reviewed is None else len(reviewed) + 1  # and the answer's end
    max_usage = _max_usage(request, prompt, scored, teacher.max_model_len)
    return Attempt(job, pooled, teacher, recorder, engine_id, prompt, reviewed, max_usage)


def _max_usage(request: GuidanceRequest, prompt: Prompt, scored: int, context: int) -> Usage:
    """Return the upper bound of the usage. A review has two prompts, the second at most as long as the first."""
    answer = len(prompt.answer)
    conversation = prompt.max_tokens - answer
    continued = conversation + (max(answer, scored + RETOKENIZATION_TOKENS) if scored else answer)
    return Usage(
        prompt_tokens=min(continued, context) + (conversation + scored if scored else 0),
        completion_tokens=max(0, min(request.max_guidance_tokens, context - prompt.tokens)),
    )
