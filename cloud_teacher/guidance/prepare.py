"""A request as a teacher gets it: rendered, encoded, measured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cloud_teacher.auth.caller import Caller
from cloud_teacher.teachers.base import Prompt, Standing, Teacher
from shared.errors import PromptTooLong
from shared.prompting.templates import Template
from shared.prompting.tokenize import tokenize_off_loop
from shared.protocol.guidance import GuidanceRequest, ReviewRequest, Usage

RETOKENISED = 16
"""An answer that is cut and tokenised again may have a few tokens more than it had as part of the whole."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be tried, and whose it is."""

    request: GuidanceRequest
    template: Template
    caller: Caller

    cache_salt: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)

    @property
    def standing(self) -> Standing:
        return Standing(self.caller.allowance.priority + self.request.priority, self.cache_salt, self.trace)


class Work(NamedTuple):
    """What the teacher is asked, and the most that it can come to."""

    prompt: Prompt
    reviewed: list[int] | None
    """Ids of what is written of the answer and a review's step, as one text."""
    most: Usage


async def prepare(teacher: Teacher, asked: Asked, max_prompt_tokens: int) -> Work:
    """The conversation as the teacher gets it.

    Raises InvalidRequest, Unsupported, and PromptTooLong where no token would fit behind them and what is written of the
    answer, or they are beyond the limit.
    """
    request = asked.request
    if request.json_schema is not None:
        await asyncio.to_thread(teacher.check_schema, request.json_schema)
    messages = asked.template.apply(request.messages)
    reviewer = teacher.reviewer() if isinstance(request, ReviewRequest) else None
    draft_text = request.answer + request.draft if isinstance(request, ReviewRequest) else None

    def encode() -> tuple[Prompt, list[int] | None]:
        reviewed = reviewer.encode_answer(draft_text) if reviewer and draft_text is not None else None
        return teacher.encode(messages, request.answer), reviewed

    prompt, reviewed = await tokenize_off_loop(encode, messages, draft_text or request.answer)
    most = min(max_prompt_tokens, teacher.max_model_len - 1)
    if prompt.tokens > most:
        raise PromptTooLong(f"the prompt has {prompt.tokens} tokens; {most} is the most", param="messages")
    scored = 0 if reviewed is None else len(reviewed) + 1  # and the answer's end
    return Work(prompt, reviewed, _most(request, prompt, scored, teacher.max_model_len))


def _most(request: GuidanceRequest, prompt: Prompt, scored: int, context: int) -> Usage:
    """What is asked for and not more: a review asks the engine twice, and the second time with no more than the first."""
    answer = len(prompt.answer)
    conversation = prompt.most - answer
    guided = conversation + (max(answer, scored + RETOKENISED) if scored else answer)
    written = max(0, min(request.max_guidance_tokens, context - prompt.tokens))
    return Usage(
        prompt_tokens=min(guided, context) + (conversation + scored if scored else 0), completion_tokens=written
    )
