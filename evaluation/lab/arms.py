"""Arms: who writes the answer, and how much of it. Each has a text form, `name[:value][,key=value...]`, and becomes requests.

off                              the student alone
teacher                          the teacher alone
fixed:40                         the teacher's first 40 tokens, the student's rest
naive:40                         the same as thirty lines around two servers do it: cut anywhere, then a message of its own
outline:100                      the teacher's terse outline, which the student sees and writes out
random:10-80                     the same as fixed with a length drawn for each question from the run's seed
adaptive:handback_after=3, on_demand:confidence_threshold=0.5, review:acceptance_threshold=0.5,max_correction_tokens=1
                                 the edge's policies; what is left out the edge decides
review:rollout_fraction=0.5, teacher:rollout_fraction=0.5
                                 half of the questions by lot; the student alone answers the others
route:confidence_threshold=0.9,tokens=16         the student's first tokens decide who writes the whole answer
cascade:confidence_threshold=0.9                 the student's whole answer decides whether the teacher's takes its place
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from evaluation.lab.errors import BadArm

MAX_TOKENS = 1_000_000
TEMPLATE = re.compile(r"[\w.@-]{1,100}")


def _tokens(text: str) -> int:
    """Tokens, 1 to a million."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_TOKENS):
        raise ValueError
    return int(text)


def _count(text: str) -> int:
    """A number of tokens, 0 to a thousand."""
    if not (text.isascii() and text.isdigit() and int(text) <= 1000):
        raise ValueError
    return int(text)


def _probability(text: str) -> float:
    """A probability from 0 to below 1."""
    value = float(text)
    if not (math.isfinite(value) and 0 <= value < 1):
        raise ValueError
    return value


def _share(text: str) -> float:
    """A share of the questions, above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value


class Between(NamedTuple):
    """Lengths, both ends included."""

    low: int
    high: int


def _between(text: str) -> Between:
    """A range such as 10-80."""
    low, _, high = text.partition("-")
    ends = Between(_tokens(low), _tokens(high))
    if ends.low > ends.high:
        raise ValueError
    return ends


def _template(text: str) -> str:
    """The name of a guidance template."""
    if not TEMPLATE.fullmatch(text):
        raise ValueError
    return text


READ: dict[str, Callable[[str], Any]] = {
    "tokens": _tokens,
    "range": _between,
    "template": _template,
    "handback_after": _count,
    "draft_lines": _tokens,
    "max_correction_tokens": _count,
    "acceptance_threshold": _probability,
    "confidence_threshold": _probability,
    "rollout_fraction": _share,
}


class _Kind(NamedTuple):
    keys: tuple[str, ...]
    """Those it takes; a bare value is the first one's."""
    needed: tuple[str, ...] = ()


KINDS = {
    "off": _Kind(()),
    "teacher": _Kind(("rollout_fraction", "template")),
    "fixed": _Kind(("tokens", "template", "rollout_fraction"), ("tokens",)),
    "naive": _Kind(("tokens",), ("tokens",)),
    "random": _Kind(("range", "template"), ("range",)),
    "outline": _Kind(("tokens", "template", "rollout_fraction")),
    "adaptive": _Kind(
        ("handback_after", "tokens", "template", "confidence_threshold", "acceptance_threshold", "rollout_fraction")
    ),
    "on_demand": _Kind(
        (
            "confidence_threshold",
            "tokens",
            "template",
            "handback_after",
            "max_correction_tokens",
            "acceptance_threshold",
            "rollout_fraction",
        )
    ),
    "review": _Kind(
        (
            "acceptance_threshold",
            "handback_after",
            "max_correction_tokens",
            "draft_lines",
            "tokens",
            "template",
            "confidence_threshold",
            "rollout_fraction",
        )
    ),
    "route": _Kind(("confidence_threshold", "tokens"), ("confidence_threshold",)),
    "cascade": _Kind(("confidence_threshold",), ("confidence_threshold",)),
}
WISHES = {
    "template",
    "handback_after",
    "acceptance_threshold",
    "confidence_threshold",
    "draft_lines",
    "max_correction_tokens",
    "rollout_fraction",
}
"""Those that have the same names there as in a request's `gkt` object."""
STUDENT, TEACHER, GUIDED = "gkt-student", "gkt-teacher", "gkt"
ROUTE_TOKENS = 16
"""The student's first tokens by which `route` decides where it does not say how many."""


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
            raise BadArm(f"arm {text!r}: there is no {kind!r}; there are {', '.join(KINDS)}")
        takes = KINDS[kind]
        values: dict[str, Any] = {}
        for at, part in enumerate(rest.split(",") if colon else []):
            key, equals, value = part.partition("=")
            if not equals:
                if at or not takes.keys:
                    raise BadArm(f"arm {text!r}: {part!r} is no key=value")
                key, value = takes.keys[0], part
            if key not in takes.keys:
                raise BadArm(f"arm {text!r}: {kind} takes no {key!r}; it takes {', '.join(takes.keys) or 'nothing'}")
            if key in values:
                raise BadArm(f"arm {text!r}: {key} stands there twice")
            try:
                values[key] = READ[key](value)
            except ValueError:
                raise BadArm(
                    f"arm {text!r}: {key} is {READ[key].__doc__}; {value!r} is none".replace(".;", ";")
                ) from None
        missing = [key for key in takes.needed if key not in values]
        if missing:
            raise BadArm(f"arm {text!r}: {kind} needs {missing[0]}, as in {kind}:{EXAMPLES[missing[0]]}")
        return cls(text, kind, values)

    @property
    def two_steps(self) -> bool:
        """Whether the student's own confidence decides who answers."""
        return self.kind in {"route", "cascade"}

    @property
    def wishes(self) -> dict[str, Any]:
        """What of it requests and policy files say as it is."""
        return {key: value for key, value in self.values.items() if key in WISHES}

    def for_share(self, rollout_fraction: float) -> Arm:
        """The same for a share of the questions; itself where that is all of them."""
        comma = "," if ":" in self.text else ":"
        return Arm.parse(f"{self.text}{comma}rollout_fraction={rollout_fraction:g}") if rollout_fraction < 1 else self

    def request(self, question_id: str, seed: int) -> dict[str, Any]:
        """`model` and, where there is something to say, `gkt` of the request for one question.

        For `route` and `cascade` it is the request to the student alone, for `naive` that to the teacher.
        """
        if self.kind == "off" or self.two_steps:
            return {"model": STUDENT}
        if self.kind == "naive":
            return {"model": TEACHER}
        if self.kind == "teacher":
            return {"model": TEACHER, "gkt": self.wishes} if self.wishes else {"model": TEACHER}
        mode = "fixed" if self.kind == "random" else self.kind
        tokens = self.values.get("tokens")
        if self.kind == "random":
            # Text as the seed: a question's length does not depend on which others are asked.
            tokens = random.Random(f"{seed}:{question_id}").randint(*self.values["range"])  # noqa: S311
        budget = {} if tokens is None else {"max_guidance_tokens": tokens}
        return {"model": GUIDED, "gkt": {"mode": mode, **budget, **self.wishes}}


EXAMPLES = {"tokens": "40", "range": "10-80", "confidence_threshold": "confidence_threshold=0.9"}


def parse_all(texts: list[str]) -> list[Arm]:
    """Arms in the order given. Raises BadArm, for one that is given twice too."""
    arms = [Arm.parse(text) for text in texts]
    seen: dict[tuple[str, tuple[tuple[str, Any], ...]], str] = {}
    for arm in arms:
        meaning = (arm.kind, tuple(sorted(arm.values.items())))
        if meaning in seen:
            also = "" if seen[meaning] == arm.text else f", also as {seen[meaning]!r}"
            raise BadArm(f"arm {arm.text!r} is given twice{also}")
        seen[meaning] = arm.text
    if not arms:
        raise BadArm("there is nothing to run: give --arm, as in --arm off --arm fixed:40")
    return arms
