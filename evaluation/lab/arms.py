"""Arms: which model writes the answer, and how much of it. An arm is written as `name[:value][,key=value...]`.

off                                 the student alone
teacher                             the teacher alone
fixed:40                            the teacher's first 40 tokens, then the student
naive:40                            the same without this project: a cut at any character, then a second chat message
outline:100                         the teacher's terse outline, which the student sees and writes out
random:10-80                        as fixed, with a length drawn for each question from the run's seed
adaptive:handback_after=3, on_demand:confidence_threshold=0.5, review:acceptance_threshold=0.5,max_correction_tokens=1
                                    the edge's policies; the edge decides what is left out
review:rollout_fraction=0.5, teacher:rollout_fraction=0.5
                                    the same for half of the questions; the student alone answers the rest
route:confidence_threshold=0.9,probe_tokens=16
                                    the student's first tokens decide which model writes the whole answer
cascade:confidence_threshold=0.9    the student's whole answer decides whether the teacher's replaces it
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from evaluation.lab.errors import BadArm
from shared.protocol.gkt import PolicyFields

STUDENT, TEACHER, GUIDED = "gkt-student", "gkt-teacher", "gkt"
ROUTE_PROBE_TOKENS = 16
"""Default number of the student's first tokens by which `route` decides."""
BELOW_ONE, ABOVE_ZERO = math.nextafter(1, 0), math.nextafter(0, 1)


class Number(NamedTuple):
    """A value of an arm that is a number, with its bounds."""

    type: type[int] | type[float]
    low: float
    high: float
    meaning: str

    def parse(self, text: str) -> int | float:
        """Raises ValueError."""
        pattern = r"[0-9]+" if self.type is int else r"[0-9]*\.?[0-9]+"
        number = self.type(text) if re.fullmatch(pattern, text) else -1
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.meaning}, not {text!r}")
        return number


TOKENS = Number(int, 1, 1_000_000, "a number of tokens from 1 to 1,000,000")
COUNT = Number(int, 0, 1000, "a number of tokens from 0 to 1,000")
PROBABILITY = Number(float, 0, BELOW_ONE, "a probability from 0 to below 1")
NUMBERS = {
    "max_guidance_tokens": TOKENS,
    "probe_tokens": TOKENS,
    "draft_lines": TOKENS._replace(meaning="a number of lines from 1 to 1,000,000"),
    "handback_after": COUNT,
    "max_correction_tokens": COUNT,
    "acceptance_threshold": PROBABILITY,
    "confidence_threshold": PROBABILITY,
    "rollout_fraction": Number(float, ABOVE_ZERO, 1, "a fraction of the questions, above 0 and at most 1"),
}
PREFIX = ("max_guidance_tokens", "template", "rollout_fraction")
TURNS = (*PREFIX, "handback_after", "acceptance_threshold", "confidence_threshold")
KINDS = {
    "off": (),
    "teacher": ("rollout_fraction", "template"),
    "fixed": PREFIX,
    "naive": ("max_guidance_tokens",),
    "random": ("range", "template"),
    "outline": PREFIX,
    "adaptive": ("handback_after", *TURNS),
    "on_demand": ("confidence_threshold", *TURNS, "max_correction_tokens"),
    "review": ("acceptance_threshold", *TURNS, "max_correction_tokens", "draft_lines"),
    "route": ("confidence_threshold", "probe_tokens"),
    "cascade": ("confidence_threshold",),
}
"""The values that each kind of arm takes; one without a key is that of the first."""
NEEDED = {
    "fixed": "fixed:40",
    "naive": "naive:40",
    "random": "random:10-80",
    "route": "route:confidence_threshold=0.9",
    "cascade": "cascade:confidence_threshold=0.9",
}
"""An example of each kind of arm whose first value must be given."""


@dataclass(frozen=True)
class Arm:
    """One arm. `text` is its name in rows and reports, as the user wrote it."""

    text: str
    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Raises BadArm."""
        kind, colon, rest = text.partition(":")
        if kind not in KINDS:
            raise BadArm(f"arm {text!r}: there is no {kind!r}; the arms are {', '.join(KINDS)}")
        keys = list(dict.fromkeys(KINDS[kind]))
        values: dict[str, Any] = {}
        for at, part in enumerate(rest.split(",") if colon else []):
            key, equals, value = part.partition("=")
            if not equals:
                if at or not keys:
                    raise BadArm(f"arm {text!r}: {part!r} is not written as key=value")
                key, value = keys[0], part
            if key not in keys:
                raise BadArm(f"arm {text!r}: {kind} takes no {key!r}; it takes {', '.join(keys) or 'no values'}")
            if key in values:
                raise BadArm(f"arm {text!r}: {key} is given twice")
            try:
                values[key] = _value(key, value)
            except ValueError as error:
                raise BadArm(f"arm {text!r}: {key} must be {error}") from None
        if kind in NEEDED and keys[0] not in values:
            raise BadArm(f"arm {text!r}: {kind} needs {keys[0]}, as in {NEEDED[kind]}")
        return cls(text, kind, values)

    @property
    def asks_student_first(self) -> bool:
        """True if the student's confidence in its own answer decides which model's answer counts."""
        return self.kind in {"route", "cascade"}

    @property
    def policy(self) -> dict[str, Any]:
        """The values that are fields of a request's `gkt` object and of a policy file."""
        return {key: value for key, value in self.values.items() if key in PolicyFields.model_fields}

    def with_rollout(self, fraction: float) -> Arm:
        """Return the arm for a fraction of the questions; the arm itself for all of them."""
        comma = "," if ":" in self.text else ":"
        return Arm.parse(f"{self.text}{comma}rollout_fraction={fraction:g}") if fraction < 1 else self

    def request(self, question_id: str, seed: int) -> dict[str, Any]:
        """Return `model`, and `gkt` if there is something to set, of the request for one question.

        For `route` and `cascade` this is the request to the student alone, for `naive` that to the teacher.
        """
        if self.kind == "off" or self.asks_student_first:
            return {"model": STUDENT}
        if self.kind == "naive":
            return {"model": TEACHER}
        if self.kind == "teacher":
            return {"model": TEACHER, "gkt": self.policy} if self.policy else {"model": TEACHER}
        if self.kind == "random":
            # Text as the seed: the length for a question does not depend on the other questions of the run.
            length = random.Random(f"{seed}:{question_id}").randint(*self.values["range"])  # noqa: S311
            return {"model": GUIDED, "gkt": {"mode": "fixed", "max_guidance_tokens": length, **self.policy}}
        return {"model": GUIDED, "gkt": {"mode": self.kind, **self.policy}}


def parse_all(texts: list[str]) -> list[Arm]:
    """Return the arms in the order given. Raises BadArm, also if one is given twice."""
    arms = [Arm.parse(text) for text in texts]
    seen: dict[tuple[str, tuple[tuple[str, Any], ...]], str] = {}
    for arm in arms:
        meaning = (arm.kind, tuple(sorted(arm.values.items())))
        if meaning in seen:
            also = "" if seen[meaning] == arm.text else f", also as {seen[meaning]!r}"
            raise BadArm(f"arm {arm.text!r} is given twice{also}")
        seen[meaning] = arm.text
    if not arms:
        raise BadArm("there is no arm to run; name arms with --arm, as in --arm off --arm fixed:40")
    return arms


def _value(key: str, text: str) -> Any:
    """Parse a value. Raises ValueError with the accepted values."""
    if key in NUMBERS:
        return NUMBERS[key].parse(text)
    if key == "template":
        if not re.fullmatch(r"[\w.@-]{1,100}", text):
            raise ValueError(f"the name of a guidance template, not {text!r}")
        return text
    ends = re.fullmatch(r"([0-9]{1,6})-([0-9]{1,6})", text)
    low, high = (int(ends[1]), int(ends[2])) if ends else (0, 0)
    if not 1 <= low <= high:
        raise ValueError(f"a range of tokens such as 10-80, not {text!r}")
    return low, high
