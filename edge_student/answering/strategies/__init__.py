"""Strategies of answering: one module per family of modes, with the names of its `MODES` and one public coroutine, `answer`.

Every module of this package is found by itself, so that adding a mode is adding a module.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncGenerator, Callable, Mapping

from edge_student.answering.choice import Part
from edge_student.answering.context import AnswerContext
from edge_student.answering.request import AnswerRequest
from edge_student.answering.strategies import student_only

Strategy = Callable[[AnswerContext], AsyncGenerator[Part, None]]


def _strategies() -> Mapping[str, Strategy]:
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {str(mode): module.answer for module in modules for mode in module.MODES}


STRATEGIES = _strategies()
"""The strategy of each mode."""


def strategy_for(request: AnswerRequest) -> Strategy:
    """Return the strategy of the request's mode. Without a budget, or for raw text, the student answers alone."""
    if request.messages is None or not request.policy.max_guidance_tokens:
        return student_only.answer
    return STRATEGIES[request.policy.mode]
