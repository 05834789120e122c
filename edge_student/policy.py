"""What a request gets: whether the teacher is asked, for how much, by which template. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass

from edge_student.settings import EdgeSettings
from shared.errors import UnknownModel
from shared.guided import GktOptions, Mode

MODEL_MODES: dict[str, Mode | None] = {"gkt": None, "gkt-student": Mode.OFF, "gkt-teacher": Mode.TEACHER}
"""Model names and the mode each stands for; None leaves it to the request and the policy."""


@dataclass(frozen=True)
class Plan:
    mode: Mode
    budget: int
    """The teacher's tokens, at most. 0 asks nothing."""
    template: str
    alone: bool
    """Whether the teacher may write the whole answer, so that nothing follows its words."""
    held: bool = False
    """Whether the student begins its prefill only when the teacher's first word is there."""
    scored: bool = False
    """Whether the student says how probable the guidance was to it."""


def plan(model: str, options: GktOptions | None, max_tokens: int | None, settings: EdgeSettings) -> Plan:
    """Decide for one request. The request's own wishes win over the model's name, that over the settings.

    Raises UnknownModel.
    """
    if model not in MODEL_MODES:
        known = ", ".join(MODEL_MODES)
        raise UnknownModel(f"there is no model {model!r}; there are {known}", param="model")
    options = options or GktOptions()
    mode = options.mode or MODEL_MODES[model] or settings.mode
    match mode:
        case Mode.OFF:
            budget = 0
        case Mode.FIXED:
            budget = (
                settings.max_guidance_tokens if options.max_guidance_tokens is None else options.max_guidance_tokens
            )
        case Mode.TEACHER:
            budget = options.max_guidance_tokens or max_tokens or settings.teacher_max_tokens
    if max_tokens is not None:
        budget = min(budget, max_tokens)
    return Plan(
        mode=mode,
        budget=budget,
        template=options.template or settings.template,
        alone=max_tokens is not None and budget == max_tokens,
        held=budget > 0 and settings.prefill_after_teacher,
        scored=budget > 0 and options.scores,
    )
