"""The schedule of faults: kind, target, time and duration, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ChaosFault(StrEnum):
    """Kinds of faults of links, of services, and of the machines that they run on."""

    LATENCY = "latency"
    """The link has a latency of hundreds of milliseconds and a low bandwidth."""
    STALL = "stall"
    CUT = "cut"
    CUT_AFTER = "cut_after"
    """The link is cut after some bytes from the cloud."""
    RESET = "reset"
    CORRUPT = "corrupt"
    REFUSE = "refuse"
    CLOUD_KILLED = "cloud_killed"
    CLOUD_PAUSED = "cloud_paused"
    EDGE_KILLED = "edge_killed"
    DISK_FULL = "disk_full"
    """No file of the service can grow (RLIMIT_FSIZE)."""
    CLOCK_JUMP = "clock_jump"
    """The wall clock is wrong by an hour or a day."""


LINK_FAULTS = tuple(ChaosFault)[: tuple(ChaosFault).index(ChaosFault.CLOUD_KILLED)]
CLOUD = "cloud"


@dataclass(frozen=True)
class ScheduledFault:
    """`at_s` is the earliest start, from the start of the load; the fault waits for the one before it in its sequence."""

    at_s: float
    kind: ChaosFault
    target: str
    lasts_s: float
    options: Mapping[str, Any] = field(default_factory=dict)


def schedule(
    seed: int, edges: Sequence[str], *, span_s: float, without: Collection[ChaosFault] = ()
) -> list[list[ScheduledFault]]:
    """Return sequences of faults. Faults of one sequence never overlap; each kind of a sequence occurs at least once."""
    services = [CLOUD, *edges]
    sequences: list[tuple[Sequence[ChaosFault], Sequence[str], float]] = [  # kinds, targets, seconds for each fault
        *((LINK_FAULTS, [edge], 3.0) for edge in edges),
        ([ChaosFault.CLOUD_KILLED, ChaosFault.CLOUD_PAUSED], [CLOUD], 8.0),
        ([ChaosFault.EDGE_KILLED], edges, 20.0),
        ([ChaosFault.DISK_FULL], services, 5.0),
        ([ChaosFault.CLOCK_JUMP], services, 3.0),
    ]
    return [
        _sequence(f"faults {seed} {number}", [kind for kind in kinds if kind not in without], targets, slot_s, span_s)
        for number, (kinds, targets, slot_s) in enumerate(sequences)
    ]


def _sequence(
    seed: str, kinds: Sequence[ChaosFault], targets: Sequence[str], slot_s: float, span_s: float
) -> list[ScheduledFault]:
    if not kinds:
        return []
    draw = random.Random(seed)  # noqa: S311 - nothing secret
    slot_s = min(slot_s, span_s / len(kinds))
    faults: list[ScheduledFault] = []
    next_kinds: list[ChaosFault] = []
    next_targets: list[str] = []
    for number in range(int(span_s / slot_s)):
        next_kinds = next_kinds or draw.sample(kinds, len(kinds))
        next_targets = next_targets or draw.sample(targets, len(targets))
        kind = next_kinds.pop()
        at_s = slot_s * (number + draw.uniform(0, 0.4))
        lasts_s = slot_s * draw.uniform(0.1, 0.5)
        faults.append(ScheduledFault(at_s, kind, next_targets.pop(), lasts_s, _options(kind, draw)))
    return faults


def _options(kind: ChaosFault, draw: random.Random) -> dict[str, Any]:
    direction = draw.choice(["up", "down", "both"])
    match kind:
        case ChaosFault.LATENCY:
            return {"latency_ms": draw.choice([150, 400, 900]), "jitter_ms": 50, "down_kbit": draw.choice([64, 256])}
        case ChaosFault.STALL:
            return {"direction": direction}
        case ChaosFault.CUT_AFTER:
            return {"direction": "down", "after_bytes": draw.randint(200, 8000)}
        case ChaosFault.CORRUPT:
            return {"direction": direction, "rate": draw.choice([0.0003, 0.001, 0.003]), "seed": draw.randrange(10**6)}
        case ChaosFault.CLOCK_JUMP:
            return {"jump_s": draw.choice([-86_400, -3600, 3600, 86_400])}
        case _:
            return {}
