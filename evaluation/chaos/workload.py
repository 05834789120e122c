"""The requests of a run: content, edge, time, and behaviour of the client, drawn from a seed."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
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
SLOW_EDGE_WEIGHT = 0.2
"""Requests of an edge with a real student, relative to a scripted one. With more its queue would grow without end."""

QUESTIONS = (
    "Why is the sky blue?",
    "How do I make tea?",
    "Count the eggs in two dozen.",
    "What is a prime number?",
    "Name three rivers — and where they end: 海、湖, or elsewhere?",
)


class Behaviour(StrEnum):
    """Behaviour of a client."""

    READS = "reads"
    VANISHES = "vanishes"
    """The client disconnects in the middle."""
    NEVER_READS = "never_reads"
    """The client reads no byte of its stream, and disconnects at the end of the run."""


@dataclass(frozen=True)
class ClientRequest:
    """One request, and its client."""

    number: int
    at_s: float
    """Time from the start of the load."""
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
    """Time after which a client that vanishes disconnects."""

    @property
    def body(self) -> dict[str, Any]:
        gkt = {"mode": self.mode, "max_guidance_tokens": self.guidance_tokens, "handback_after": self.handback_after}
        body: dict[str, Any] = {
            "model": "gkt",
            "messages": [{"role": "user", "content": f"{self.mark} {self.question}"}],
            "max_tokens": self.max_tokens,
            "stream": self.stream,
            "gkt": gkt,
        }
        if self.behaviour is Behaviour.NEVER_READS:
            # Large enough to fill all buffers between the edge and the client.
            body |= {"n": 4, "logprobs": True, "top_logprobs": 20}
        return body


def nonces(seed: int) -> Iterator[str]:
    """Yield nonces without end, no two the same."""
    draw = random.Random(f"nonces {seed}")  # noqa: S311 - nothing secret
    used: set[str] = set()
    while True:
        nonce = "".join(draw.choices(string.ascii_lowercase, k=NONCE_LETTERS))
        if nonce not in used:
            used.add(nonce)
            yield nonce


def workload(
    seed: int, count: int, edges: Sequence[str], *, span_s: float, slow_edges: Sequence[str] = ()
) -> list[ClientRequest]:
    """Return requests over a span, in the order of their times. `slow_edges` get fewer, for shorter answers."""
    draw = random.Random(f"asks {seed}")  # noqa: S311 - nothing secret
    fresh = nonces(seed)
    weights = [SLOW_EDGE_WEIGHT if edge in slow_edges else 1.0 for edge in edges]
    requests: list[ClientRequest] = []
    modes: list[Mode] = []
    for number, at_s in enumerate(sorted(draw.uniform(0, span_s) for _ in range(count)), 1):
        modes = modes or draw.sample(MODES, len(MODES))
        [edge] = draw.choices(edges, weights)
        stream = draw.random() < 0.6
        chosen = draw.random()
        behaviour = Behaviour.READS
        if chosen < 0.08:
            behaviour = Behaviour.VANISHES
        elif chosen < 0.11 and stream and edge not in slow_edges:
            behaviour = Behaviour.NEVER_READS
        endless = behaviour is Behaviour.NEVER_READS
        requests.append(
            ClientRequest(
                number,
                at_s,
                edge,
                mark=Mark(next(fresh), 400 if endless else draw.randint(12, 60)),
                mode=modes.pop(),
                question=draw.choice(QUESTIONS),
                stream=stream,
                max_tokens=400 if endless else draw.choice([16, 24] if edge in slow_edges else [20, 48, 96]),
                guidance_tokens=draw.choice([8, 24, 40]),
                handback_after=draw.choice([0, 2, 3]),
                behaviour=behaviour,
                leaves_s=draw.uniform(0, 1.0),
            )
        )
    return requests


def warm_up_requests(edges: Sequence[str], fresh: Iterator[str]) -> list[ClientRequest]:
    """Return one request for each mode, streamed and not, and each edge."""
    return [
        ClientRequest(0, 0.0, edge, Mark(next(fresh), 20), mode, QUESTIONS[0], stream=stream)
        for mode in Mode
        for stream in (True, False)
        for edge in edges
    ]
