"""What is asked, of which edge, when, and how its client behaves: all of it from a seed."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any

from shared.echo_text import NONCE_LETTERS, Mark
from shared.protocol.gkt import Mode

MODES = (
    *[Mode.FIXED] * 3,
    *[Mode.ADAPTIVE] * 2,
    *[Mode.ON_DEMAND] * 2,
    *[Mode.REVIEW] * 2,
    *[Mode.TEACHER] * 2,
    Mode.OUTLINE,
    Mode.OFF,
)
SLOW_SHARE = 0.2
"""What a real student is asked beside a scripted one: a queue that grows and grows would be measured, not the faults."""

QUESTIONS = (
    "Why is the sky blue?",
    "How do I make tea?",
    "Count the eggs in two dozen.",
    "What is a prime number?",
    "Name three rivers — and where they end: 海、湖, or elsewhere?",
)


class Behaviour(StrEnum):
    """Of a client."""

    READS = "reads"
    VANISHES = "vanishes"
    """It closes its connection in the middle."""
    NEVER_READS = "never_reads"
    """It takes not a byte of its stream, and leaves only when all is over."""


@dataclass(frozen=True)
class Ask:
    """One request, and its client."""

    number: int
    at_s: float
    """After the load has begun."""
    edge: str
    mark: Mark
    mode: Mode
    question: str
    stream: bool = True
    max_tokens: int = 64
    guidance_tokens: int = 24
    handback_after: int = 3
    behaviour: Behaviour = Behaviour.READS
    leaves_s: float = 0.0
    """After which a client that vanishes is gone."""

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": "gkt",
            "messages": [{"role": "user", "content": f"{self.mark} {self.question}"}],
            "max_tokens": self.max_tokens,
            "stream": self.stream,
            "gkt": {
                "mode": self.mode,
                "max_guidance_tokens": self.guidance_tokens,
                "handback_after": self.handback_after,
            },
        }
        if self.behaviour is Behaviour.NEVER_READS:
            # Enough that no buffer between the two holds it.
            body |= {"n": 4, "logprobs": True, "top_logprobs": 20}
        return body


def nonces(seed: int) -> Iterator[str]:
    """Without end, none twice."""
    draw = random.Random(f"nonces {seed}")  # noqa: S311 - nothing secret
    used: set[str] = set()
    while True:
        nonce = "".join(draw.choices(string.ascii_lowercase, k=NONCE_LETTERS))
        if nonce not in used:
            used.add(nonce)
            yield nonce


def asks(seed: int, amount: int, edges: Sequence[str], *, span_s: float, slow_edges: Sequence[str] = ()) -> list[Ask]:
    """Requests spread over a span, in the order of their times. `slow_edges` get fewer, for shorter answers."""
    draw = random.Random(f"asks {seed}")  # noqa: S311 - nothing secret
    numbers, fresh = count(1), nonces(seed)
    shares = [SLOW_SHARE if edge in slow_edges else 1.0 for edge in edges]
    times = sorted(draw.uniform(0, span_s) for _ in range(amount))
    drawn: list[Ask] = []
    modes: list[Mode] = []
    for at_s in times:
        if not modes:
            modes = draw.sample(MODES, len(MODES))
        [edge] = draw.choices(edges, shares)
        stream = draw.random() < 0.6
        chosen = draw.random()
        behaviour = Behaviour.READS
        if chosen < 0.08:
            behaviour = Behaviour.VANISHES
        elif chosen < 0.11 and stream and edge not in slow_edges:
            behaviour = Behaviour.NEVER_READS
        never = behaviour is Behaviour.NEVER_READS
        drawn.append(
            Ask(
                number=next(numbers),
                at_s=at_s,
                edge=edge,
                mark=Mark(next(fresh), 400 if never else draw.randint(12, 60)),
                mode=modes.pop(),
                question=draw.choice(QUESTIONS),
                stream=stream,
                max_tokens=400 if never else draw.choice([16, 24]) if edge in slow_edges else draw.choice([20, 48, 96]),
                guidance_tokens=draw.choice([8, 24, 40]),
                handback_after=draw.choice([0, 2, 3]),
                behaviour=behaviour,
                leaves_s=draw.uniform(0, 1.0),
            )
        )
    return drawn


def rounds(edges: Sequence[str], fresh: Iterator[str], *, times: int) -> list[Ask]:
    """Every mode, streamed and whole, of every edge: what an idle pair is warmed up with."""
    return [
        Ask(number=0, at_s=0.0, edge=edge, mark=Mark(next(fresh), 20), mode=mode, question=QUESTIONS[0], stream=stream)
        for _ in range(times)
        for mode in Mode
        for stream in (True, False)
        for edge in edges
    ]
