"""Workloads of simulated experiments: one for each kind of metric, with the distributions that such metrics have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloud_teacher.experiments.statistics.sums import Floats
from shared.experiments.metrics import Direction, MetricKind, PrimaryMetric

Draw = Callable[[np.random.Generator, Floats], tuple[Floats, Floats]]
"""Draws the numbers of answers, and their divisors, given the effect on each answer."""


@dataclass(frozen=True)
class Workload:
    name: str
    metric: PrimaryMetric
    draw: Draw
    users: int = 0
    """Number of users who ask again and again, some much more often than others. If 0, each answer is a unit of its own."""


def _agreement(rng: np.random.Generator, effect: Floats) -> tuple[Floats, Floats]:
    return rng.beta(8, 2, effect.shape) + effect, np.ones_like(effect)


def _milliseconds(rng: np.random.Generator, effect: Floats) -> tuple[Floats, Floats]:
    return rng.lognormal(6.5, 0.8, effect.shape) * (1 + effect / _MEAN_MS), np.ones_like(effect)


def _cost(rng: np.random.Generator, effect: Floats) -> tuple[Floats, Floats]:
    tokens = np.ceil(rng.lognormal(4.5, 0.7, effect.shape))
    return tokens * (1 + effect) * rng.lognormal(-0.125, 0.5, effect.shape), tokens


def _rate(probability: float) -> Draw:
    def draw(rng: np.random.Generator, effect: Floats) -> tuple[Floats, Floats]:
        return (rng.random(effect.shape) < probability + effect).astype(np.float64), np.ones_like(effect)

    return draw


_MEAN_MS = float(np.exp(6.5 + 0.8**2 / 2))


def _metric(
    name: str, kind: MetricKind, smallest_effect: float, better: Direction, per: str | None = None
) -> PrimaryMetric:
    return PrimaryMetric(name=name, kind=kind, better=better, per=per, smallest_effect=smallest_effect)


WORKLOADS = (
    Workload("mean", _metric("shadow_agreement", MetricKind.MEAN, 0.02, Direction.HIGHER), _agreement),
    Workload("skewed_mean", _metric("total_ms", MetricKind.MEAN, 80, Direction.LOWER), _milliseconds),
    Workload("rate", _metric("correct", MetricKind.RATE, 0.05, Direction.HIGHER), _rate(0.5)),
    Workload("rare_rate", _metric("fallback", MetricKind.RATE, 0.01, Direction.LOWER), _rate(0.02)),
    Workload("ratio", _metric("cost", MetricKind.RATIO, 0.05, Direction.LOWER, per="output_tokens"), _cost),
    Workload(
        "returning_users", _metric("shadow_agreement", MetricKind.MEAN, 0.02, Direction.HIGHER), _agreement, users=600
    ),
)
