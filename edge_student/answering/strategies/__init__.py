"""How answers are made: one module per family of modes, each with one public coroutine, `answer`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from edge_student.answering.choice import Part
from edge_student.answering.context import AnswerContext
from edge_student.answering.request import AnswerRequest
from edge_student.answering.strategies import outline, prefix, student_only, verification
from shared.protocol.gkt import Mode

Strategy = Callable[[AnswerContext], AsyncGenerator[Part, None]]

STRATEGIES: dict[Mode, Strategy] = {
    Mode.OFF: student_only.answer,
    Mode.FIXED: prefix.answer,
    Mode.ADAPTIVE: prefix.answer,
    Mode.TEACHER: prefix.answer,
    Mode.OUTLINE: outline.answer,
    Mode.ON_DEMAND: verification.answer,
    Mode.REVIEW: verification.answer,
}


def strategy_for(request: AnswerRequest) -> Strategy:
    """Return the strategy of the request's mode. Without a budget, or for raw text, the student answers alone."""
    if request.messages is None or not request.policy.max_guidance_tokens:
        return student_only.answer
    return STRATEGIES[request.policy.mode]
