"""What a request gets: whether the teacher is asked, for how much, by which template. Pure decisions."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from edge_student.settings import EdgeSettings
from shared.errors import UnknownModel
from shared.policy_file import read_policy_file
from shared.protocol.gkt import GktOptions, Mode

T = TypeVar("T")
Other = TypeVar("Other")

TEMPLATES = {Mode.OUTLINE: "outline"}
"""What the teacher is asked for where nobody names a template; in the other modes `answer`."""
SURE = {Mode.ON_DEMAND: 0.5, Mode.REVIEW: 0.1}
"""Where nobody says: for a line's first token a coin's toss; for all that is read at once what costs least
(docs/explanation/guidance.md).
"""
TURN = {Mode.REVIEW: 1}
"""Where nobody says; in the other modes up to the step's end."""
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
    acceptance_threshold: float = 0.0
    handback_after: int = 0
    confidence_threshold: float = 0.0
    draft_lines: int = 1
    max_correction_tokens: int = 0
    """As in `shared.protocol.gkt.GktOptions`."""
    teacher: str | None = None
    """By its name in the cloud; None: the cloud's first."""
    policy: str | None = None
    """Name of the policy file that decided the mode, if one did."""

    @property
    def stepwise(self) -> bool:
        """Whether the two take turns, step by step."""
        return self.budget > 0 and self.mode in {Mode.ON_DEMAND, Mode.REVIEW}


class Decided(NamedTuple):
    """Settings with the policy file's values in them."""

    settings: EdgeSettings
    policy: str | None
    """Name of the policy that decides the mode of requests which name none."""


def with_policy_file(settings: EdgeSettings) -> Decided:
    """What was set wins over the policy file, the file over the defaults. Raises ConfigurationError for a bad file."""
    if settings.policy_file is None:
        return Decided(settings, None)
    policy = read_policy_file(Path(settings.policy_file))
    new = {name: value for name, value in policy.decided().items() if name not in settings.model_fields_set}
    return Decided(settings.model_copy(update=new), policy.name if "mode" in new else None)


def plan(
    model: str,
    options: GktOptions | None,
    max_tokens: int | None,
    settings: EdgeSettings,
    *,
    structured: bool = False,
    policy: str | None = None,
    lot: Callable[[], float] = lambda: 0.0,
) -> Plan:
    """Decide for one request. The request's own wishes win over the model's name, that over the settings.

    `policy` is the name of the policy file that the settings' mode is from. A `structured` answer has no steps to take turns in:
    there the teacher begins it, as in mode `fixed`. `lot` is drawn where the mode is for a share of the requests; where it is not
    below that, the student answers alone. Raises UnknownModel.
    """
    if model not in MODEL_MODES:
        known = ", ".join(MODEL_MODES)
        raise UnknownModel(f"there is no model {model!r}; there are {known}", param="model")
    options = options or GktOptions()
    wished = options.mode or MODEL_MODES[model]
    mode = wished or settings.mode
    rollout_fraction = _first(options.rollout_fraction, 1.0 if wished else settings.rollout_fraction)
    if rollout_fraction < 1 and lot() >= rollout_fraction:
        mode = Mode.OFF
    elif structured and mode in {Mode.ON_DEMAND, Mode.REVIEW}:
        mode = Mode.FIXED
    match mode:
        case Mode.OFF:
            budget = 0
        case Mode.FIXED | Mode.OUTLINE | Mode.ADAPTIVE | Mode.ON_DEMAND | Mode.REVIEW:
            given = options.max_guidance_tokens
            budget = settings.max_guidance_tokens if given is None else given
        case Mode.TEACHER:
            budget = options.max_guidance_tokens or max_tokens or settings.teacher_max_tokens
    if max_tokens is not None:
        budget = min(budget, max_tokens)
    shown = mode is not Mode.OUTLINE
    takes_turns = mode in {Mode.ON_DEMAND, Mode.REVIEW}
    handback_after = _first(options.handback_after, settings.handback_after)
    max_correction_tokens = _first(
        _first(options.max_correction_tokens, settings.max_correction_tokens), TURN.get(mode, 0)
    )
    draft_lines = _first(options.draft_lines, settings.draft_lines) if mode is Mode.REVIEW else None
    return Plan(
        mode=mode,
        budget=budget,
        template=options.template or settings.template or TEMPLATES.get(mode, "answer"),
        alone=max_tokens is not None and budget == max_tokens and not takes_turns and shown,
        held=budget > 0 and settings.prefill_after_teacher and not takes_turns and shown,
        scored=budget > 0 and options.scores and shown,
        acceptance_threshold=_first(options.acceptance_threshold, settings.acceptance_threshold),
        # The first word of a turn is one that the student would not have written.
        handback_after=0 if takes_turns and 0 < max_correction_tokens <= handback_after else handback_after,
        confidence_threshold=_first(
            _first(options.confidence_threshold, settings.confidence_threshold),
            SURE.get(mode, 0.0) if draft_lines is None else 0.0,
        ),
        draft_lines=draft_lines or 1,
        max_correction_tokens=max_correction_tokens,
        teacher=options.teacher or settings.teacher,
        policy=policy if wished is None and mode in {settings.mode, Mode.OFF} else None,
    )


def lot(prompt: Sequence[int], seed: int | None) -> float:
    """From 0 to below 1, even over prompts and seeds, and always the same of the same."""
    digest = hashlib.blake2b(f"{seed} ".encode() + array("q", prompt).tobytes(), digest_size=4)
    return int.from_bytes(digest.digest()) / 2**32


def _first(asked: T | None, otherwise: Other) -> T | Other:
    return otherwise if asked is None else asked
