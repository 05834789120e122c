"""Which fault strikes whom, when and for how long: a schedule from a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    """Of links, of services, and of the machines they run on."""

    LATENCY = "latency"
    """The link takes hundreds of milliseconds and is narrow."""
    STALL = "stall"
    CUT = "cut"
    CUT_AFTER = "cut_after"
    """The link is cut once some bytes have come down."""
    RESET = "reset"
    CORRUPT = "corrupt"
    REFUSE = "refuse"
    CLOUD_KILLED = "cloud_killed"
    CLOUD_PAUSED = "cloud_paused"
    EDGE_KILLED = "edge_killed"
    DISK_FULL = "disk_full"
    """Nothing that the service writes to a file fits any more (RLIMIT_FSIZE)."""
    CLOCK_JUMP = "clock_jump"
    """The wall clock is an hour or a day off."""


LINK = (
    FaultKind.LATENCY,
    FaultKind.STALL,
    FaultKind.CUT,
    FaultKind.CUT_AFTER,
    FaultKind.RESET,
    FaultKind.CORRUPT,
    FaultKind.REFUSE,
)
CLOUD = "cloud"


@dataclass(frozen=True)
class Strike:
    """One fault. `at_s` is after the load has begun; a fault may begin later where the one before it takes its time."""

    at_s: float
    kind: FaultKind
    target: str
    lasts_s: float
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Lane:
    """Faults that never overlap."""

    kinds: Sequence[FaultKind]
    targets: Sequence[str]
    slot_s: float
    """A fault in each of these, longer apart where there are fewer."""


def schedule(
    seed: int, edges: Sequence[str], *, span_s: float, without: Collection[FaultKind] = ()
) -> list[list[Strike]]:
    """Lanes of faults; those of one lane come one after the other. Every kind strikes at least once in its lane's span."""
    lanes = [_Lane(LINK, [edge], 3.0) for edge in edges]
    lanes += [
        _Lane([FaultKind.CLOUD_KILLED, FaultKind.CLOUD_PAUSED], [CLOUD], 8.0),
        _Lane([FaultKind.EDGE_KILLED], edges, 20.0),
        _Lane([FaultKind.DISK_FULL], [CLOUD, *edges], 5.0),
        _Lane([FaultKind.CLOCK_JUMP], [CLOUD, *edges], 3.0),
    ]
    return [_strikes(f"faults {seed} {number}", lane, span_s, without) for number, lane in enumerate(lanes)]


def _strikes(seed: str, lane: _Lane, span_s: float, without: Collection[FaultKind]) -> list[Strike]:
    draw = random.Random(seed)  # noqa: S311 - nothing secret
    kinds = [kind for kind in lane.kinds if kind not in without]
    if not kinds:
        return []
    slot_s = min(lane.slot_s, span_s / len(kinds))
    strikes: list[Strike] = []
    deck: list[FaultKind] = []
    targets: list[str] = []
    for number in range(int(span_s / slot_s)):
        deck = deck or draw.sample(kinds, len(kinds))
        targets = targets or draw.sample(lane.targets, len(lane.targets))
        kind = deck.pop()
        at_s = slot_s * (number + draw.uniform(0, 0.4))
        strikes.append(Strike(at_s, kind, targets.pop(), slot_s * draw.uniform(0.1, 0.5), _options(kind, draw)))
    return strikes


def _options(kind: FaultKind, draw: random.Random) -> dict[str, Any]:
    direction = draw.choice(["up", "down", "both"])
    match kind:
        case FaultKind.LATENCY:
            return {"latency_ms": draw.choice([150, 400, 900]), "jitter_ms": 50, "down_kbit": draw.choice([64, 256])}
        case FaultKind.STALL:
            return {"direction": direction}
        case FaultKind.CUT_AFTER:
            return {"direction": "down", "after_bytes": draw.randint(200, 8000)}
        case FaultKind.CORRUPT:
            return {"direction": direction, "rate": draw.choice([0.0003, 0.001, 0.003]), "seed": draw.randrange(10**6)}
        case FaultKind.CLOCK_JUMP:
            return {"jump_s": draw.choice([-86_400, -3600, 3600, 86_400])}
        case _:
            return {}
