"""Metrics of an experiment: the numbers of outcomes that decide it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$", max_length=60)]
"""Name of a number in an outcome, such as `total_ms`; a custom metric's name starts with `custom.`."""


class Part(BaseModel):
    """Base of the parts of an experiment. Unknown fields and mistyped values are errors: files are written by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class MetricKind(StrEnum):
    RATE = "rate"
    """Share of answers for which something is true. Its intervals are exact."""
    MEAN = "mean"
    """Mean of a number, such as `total_ms`."""
    RATIO = "ratio"
    """Sum of a number divided by the sum of another, such as cost per output token."""


class Direction(StrEnum):
    HIGHER = "higher"
    LOWER = "lower"

    @property
    def sign(self) -> int:
        """1 if higher values are better, -1 if lower values are better."""
        return 1 if self is Direction.HIGHER else -1


class Metric(Part):
    """A number of outcomes, and its better direction. A unit counts once, with the mean of its answers."""

    name: MetricName
    kind: Annotated[MetricKind, Field(strict=False)]
    better: Annotated[Direction, Field(strict=False, description="direction of an improvement")]
    per: MetricName | None = Field(default=None, description="divisor of a ratio, such as `output_tokens`")
    above: float | None = Field(
        default=None,
        description="for a rate: counts answers whose number is above this. A bound on p95 is a rate: at most 5 % of the "
        "answers take longer than the bound",
    )

    @property
    def key(self) -> str:
        """Name that is unique within an experiment: `total_ms`, `total_ms>4000`, `cost_usd/output_tokens`."""
        if self.per is not None:
            return f"{self.name}/{self.per}"
        return self.name if self.above is None else f"{self.name}>{self.above:g}"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind is MetricKind.RATIO) != (self.per is not None):
            raise ValueError(f"metric {self.name!r}: a ratio needs `per`, and only a ratio has it; kind is {self.kind}")
        if self.above is not None and self.kind is not MetricKind.RATE:
            raise ValueError(f"metric {self.name!r}: only a rate has `above`; kind is {self.kind}")
        return self


class PrimaryMetric(Metric):
    """The metric that decides between `ship`, `roll back` and `no difference`."""

    smallest_effect: float = Field(
        gt=0,
        description="smallest difference worth acting on, in the metric's unit: the δ of `no difference within ±δ`",
    )


class Guardrail(Metric):
    """A metric that must not become worse by more than a margin."""

    margin: float = Field(gt=0, description="accepted worsening, in the metric's unit")
    relative: bool = Field(
        default=False, description="if true, the margin is a fraction of the control's value; not for rates"
    )
    signal: bool = Field(
        default=False,
        description="if true, harm pauses the rollout instead of rolling it back, and no step waits for it",
    )

    @model_validator(mode="after")
    def _relative_margin_fits(self) -> Self:
        if self.relative and self.kind is MetricKind.RATE:
            raise ValueError(f"guardrail {self.name!r}: a rate needs an absolute margin, such as 0.02 for two points")
        if self.relative and self.margin >= 1:
            raise ValueError(f"guardrail {self.name!r}: a relative margin is below 1, such as 0.1; got {self.margin:g}")
        return self
