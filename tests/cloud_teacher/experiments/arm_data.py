"""Data of arms for tests, from the numbers of their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cloud_teacher.experiments.comparison import ArmData
from cloud_teacher.experiments.health import ExperimentData
from cloud_teacher.experiments.statistics.sums import Sums, UnitTotals


def of(values: Sequence[float] | np.ndarray) -> Sums:
    return Sums.of_units(UnitTotals(1, float(value)) for value in values)


def rate(total: int, units: int) -> Sums:
    return Sums(units, float(total), float(total))


def agreement(mean: float, units: int, *, seed: int = 0) -> Sums:
    """Units around a mean that is met exactly, with standard deviation 0.1."""
    values = np.random.default_rng(seed).normal(0.0, 1.0, units)
    return of((values - values.mean()) / values.std() * 0.1 + mean)


SAFE: dict[str, tuple[float, float]] = {"fallback": (0.02, 0.02), "total_ms>4000": (0.02, 0.02)}


def data(
    units: int,
    *,
    primary: tuple[float, float] = (0.8, 0.8),
    rates: Mapping[str, tuple[float, float]] = SAFE,
    cost: tuple[float, float] = (1.0, 1.0),
    mixed_units: int = 0,
    exposed: tuple[int, int] | None = None,
) -> ExperimentData:
    """Data of the arms `now` and `short`, each with this many units; pairs are (short, now)."""
    arms = {}
    for place, name in enumerate(("short", "now")):
        sums = {key: rate(round(pair[place] * units), units) for key, pair in rates.items()}
        sums["shadow_agreement"] = agreement(primary[place], units, seed=place)
        sums["cost_usd"] = agreement(cost[place], units, seed=place + 2)
        arms[name] = ArmData(exposed[place] if exposed else units, sums)
    return ExperimentData(arms, mixed_units)
