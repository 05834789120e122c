"""Rounds in which two servers take turns, of streams that have to come whole."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.bench.results import REST_S
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Ask, Server, Written

TRIES = 3
"""A round in which a stream ends before its tokens are written doesn't count; so many are tried for each that should."""


@dataclass(frozen=True)
class Effort:
    """Rounds of each figure, and tokens of each stream where rates are compared."""

    rounds: int = 5
    tokens: int = 128


def all_full(written: Sequence[Written], asks: Sequence[Ask]) -> bool:
    return all(stream.full(one) for stream, one in zip(written, asks, strict=True))


def rounds(effort: Effort, done: Sequence[float]) -> Iterator[int]:
    """Numbers of rounds until enough have been done. Raises NotMeasured when too many came to nothing."""
    for number in range(TRIES * effort.rounds):
        if len(done) == effort.rounds:
            return
        yield number
    if len(done) < effort.rounds:
        raise NotMeasured("too many streams ended before they had all their tokens: ask for fewer with --tokens")


def in_turn(one: Server, other: Server, number: int) -> Iterator[Server]:
    """Who goes first alternates; each begins on a machine at rest."""
    for server in (one, other) if number % 2 == 0 else (other, one):
        time.sleep(REST_S)
        yield server
