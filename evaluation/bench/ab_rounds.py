"""Rounds in which the targets of a comparison take turns: a machine whose speed drifts then favours none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from evaluation.figures import Figure, Measurement, NotMeasured, median, ratio
from evaluation.loadgen.apis import StreamRequest, StreamResult
from evaluation.loadgen.generator import StreamRunner, run_streams

Target = TypeVar("Target")
Job = TypeVar("Job")
Value = TypeVar("Value")
Progress = Callable[[str], None]

REST_S = 0.2
"""Pause before a measurement, in which the work of the one before ends."""
TRIES = 3
"""Rounds that may run for each round that counts."""


class Incomplete(NotMeasured):
    """A measurement has fewer tokens than it needs, so its round does not count."""


@dataclass(frozen=True)
class Rounds:
    """Rounds of a comparison, tokens of each stream, and the load generator."""

    count: int = 5
    tokens: int = 128
    progress: Progress = lambda _: None
    run: StreamRunner = run_streams

    def jobs(self, job: Callable[[int], Job]) -> Iterator[Job]:
        """Yield the jobs of all rounds that may run, from their numbers."""
        return (job(number) for number in range(TRIES * self.count))

    def take_turns(
        self,
        name: str,
        targets: Mapping[str, Target],
        jobs: Iterable[Job],
        measure: Callable[[Target, Job], Value],
        *,
        rest: bool = True,
    ) -> dict[str, list[Value]]:
        """Measure every target with the same job in each round, in an order that reverses every time.

        Return the values of the complete rounds, by the targets' names. Raise NotMeasured if the jobs end too early.
        """
        values: dict[str, list[Value]] = {target: [] for target in targets}
        done, reason = 0, "there are no more"
        for number, job in enumerate(jobs):
            self.progress(f"{name}: round {done + 1} of {self.count}")
            measured: dict[str, Value] = {}
            order = list(targets) if number % 2 == 0 else list(targets)[::-1]
            try:
                for target in order:
                    if rest:
                        time.sleep(REST_S)
                    measured[target] = measure(targets[target], job)
            except Incomplete as error:
                reason = str(error)
                continue
            for target, value in measured.items():
                values[target].append(value)
            done += 1
            if done == self.count:
                return values
        raise NotMeasured(f"only {done} of {self.count} rounds were complete: {reason}")


def complete(streams: Sequence[StreamResult], requests: Sequence[StreamRequest]) -> Sequence[StreamResult]:
    """Return the streams. Raise Incomplete if one has fewer tokens than requested."""
    if not all(stream.is_complete(request) for stream, request in zip(streams, requests, strict=True)):
        raise Incomplete("streams ended before they had all their tokens; use a smaller --tokens")
    return streams


def columns(rows: Mapping[str, Sequence[Mapping[str, float]]], name: str) -> dict[str, list[float]]:
    """Return the values of one name for each target."""
    return {target: [row[name] for row in target_rows] for target, target_rows in rows.items()}


def compared(
    name: str,
    values: Mapping[str, Sequence[float]],
    unit: str,
    how: str,
    *,
    raw_name: str | None = None,
    by_round: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Measurement:
    """Return the first target's median divided by the second's, or the median of the rounds' ratios.

    The medians are raw values with names like `{raw_name}_{target}_{unit}`.
    """
    ours, theirs = values.values()
    medians = {target: median(numbers) for target, numbers in values.items()}
    ratios = [ratio(*pair) for pair in zip(ours, theirs, strict=True)] if by_round else [ratio(*medians.values())]
    numbers = ", ".join(f"{target} {value:.4g}" for target, value in medians.items())
    text = f"{unit.replace('_per_', '/')}: {numbers}; {how}"
    raw = {f"{raw_name or name}_{target}_{unit}": value for target, value in medians.items()}
    return Measurement([Figure(name, median(ratios), text, at_most, at_least)], raw)
