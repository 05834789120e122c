"""Definition of an experiment: who takes part, what the arms change, what decides, and how far the rollout is."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from shared.experiments.metrics import Guardrail, Part, PrimaryMetric

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
VERSION = re.compile("[1-9][0-9]{0,8}")


def _check_reference(reference: str) -> str:
    version = reference.partition("@")[2].partition("#")[0]
    if version.isdigit() and not VERSION.fullmatch(version):
        raise ValueError(f"{reference!r} has no version {version}; a version is 1 to 999999999, without leading zeros")
    return reference


Reference = Annotated[
    str,
    Field(
        pattern=rf"^[a-z][a-z0-9_-]{{0,59}}(@({VERSION.pattern}#[0-9a-f]{{8,64}}|[a-z0-9][a-z0-9_.-]{{0,35}}))?$",
        description="`name`, `name@3`, `name@3#digest` or `name@label`, as in the registry",
    ),
    AfterValidator(_check_reference),
]
Percent = Annotated[int, Field(ge=1, le=100)]


class Unit(StrEnum):
    """Unit of assignment: all its answers are in one arm."""

    REQUEST = "request"
    USER = "user"
    """The `user` or `safety_identifier` of the OpenAI request, hashed on the edge."""
    EDGE = "edge"


class Status(StrEnum):
    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    """Units keep their arms, and the share of traffic stays."""
    SHIPPED = "shipped"
    ROLLED_BACK = "rolled_back"

    @property
    def active(self) -> bool:
        """True while units are assigned to arms."""
        return self in {Status.RUNNING, Status.PAUSED}


class NoDifference(StrEnum):
    """Action of the rollout if the last step shows no difference."""

    PAUSE = "pause"
    SHIP = "ship"
    ROLL_BACK = "roll_back"


class LayerRange(Part):
    """Part of a layer's units, in percent: from `start`, included, to `end`, excluded."""

    start: int = Field(default=0, ge=0, le=99)
    end: int = Field(default=100, ge=1, le=100)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"the range {self.start} to {self.end} is empty; `end` is above `start`")
        return self

    def overlaps(self, other: LayerRange) -> bool:
        return self.start < other.end and other.start < self.end


class Eligibility(Part):
    """Requests that take part. An empty list admits every request."""

    models: tuple[str, ...] = Field(default=(), strict=False, description="names of models that clients ask for")
    edge_labels: tuple[str, ...] = Field(default=(), strict=False, description="labels of edges, such as `canary`")
    tasks: tuple[str, ...] = Field(default=(), strict=False, description="task tags of requests")

    def admits(self, *, model: str, edge_labels: Collection[str], task: str | None) -> bool:
        return (
            (not self.models or model in self.models)
            and (not self.edge_labels or not set(self.edge_labels).isdisjoint(edge_labels))
            and (not self.tasks or task in self.tasks)
        )

    def overlaps(self, other: Eligibility) -> bool:
        """Return False if no request can be admitted by both. An edge can have several labels, so labels always overlap."""
        return not (_apart(self.models, other.models) or _apart(self.tasks, other.tasks))


class Arm(Part):
    """One variant. Whatever an arm leaves out is as it is without the experiment."""

    name: Name
    policy: Reference | None = None
    template: Reference | None = None
    teacher: Name | None = Field(default=None, description="name of a teacher of the cloud")
    weight: Percent | None = Field(
        default=None, description="percent of the experiment's units. If unset on all arms, they share equally"
    )

    @property
    def changes(self) -> dict[str, str]:
        """References and names that the arm sets, by field."""
        fields = {"policy": self.policy, "template": self.template, "teacher": self.teacher}
        return {field: value for field, value in fields.items() if value is not None}


class Experiment(Part):
    """An experiment. `shared.experiments.checks` compares it with its earlier state and with other experiments."""

    name: Name
    description: str = Field(default="", max_length=1000)
    salt: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="random text that makes assignments independent")
    unit: Annotated[Unit, Field(strict=False)]
    layer: Name = Field(default="default", description="experiments of one layer never meet on a unit")
    layer_range: LayerRange = LayerRange()
    eligibility: Eligibility = Eligibility()
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=10, strict=False)
    control: Name = Field(description="name of the arm that the others are compared with")
    aa: bool = Field(default=False, description="if true, all arms are equal: a test of the experiment's own machinery")
    primary: PrimaryMetric
    guardrails: tuple[Guardrail, ...] = Field(default=(), max_length=20, strict=False)
    alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="probability of ever declaring a difference that is not there"
    )
    tuning_units: int = Field(
        default=1000, ge=50, description="units of two compared arms together at which their intervals are tightest"
    )
    ramp: tuple[Percent, ...] = Field(
        default=(1, 5, 10, 25, 50, 100), min_length=1, strict=False, description="percent of units in the experiment"
    )
    step_units: int = Field(default=50, ge=1, description="new units that each arm needs before the next step")
    step_s: float = Field(default=3600, ge=0, description="shortest duration of a step")
    on_no_difference: Annotated[NoDifference, Field(strict=False)] = NoDifference.PAUSE
    muted_signals: tuple[str, ...] = Field(
        default=(), strict=False, description="signal metrics that no longer pause the rollout, as an operator decided"
    )
    status: Annotated[Status, Field(strict=False)] = Status.DRAFT
    percent: int = Field(default=0, ge=0, le=100, description="present step of the ramp; 0 in a draft")
    winner: Name | None = Field(default=None, description="arm that was shipped")

    @field_validator("ramp")
    @classmethod
    def _rises(cls, ramp: tuple[int, ...]) -> tuple[int, ...]:
        if any(after <= before for before, after in pairwise(ramp)):
            raise ValueError(f"the steps must rise, as in 1, 5, 25, 100; got {', '.join(map(str, ramp))}")
        return ramp

    @field_validator("arms")
    @classmethod
    def _arms_fit_each_other(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if twice := _duplicate([arm.name for arm in arms]):
            raise ValueError(f"two arms are called {twice!r}; names must differ")
        weights = [arm.weight for arm in arms if arm.weight is not None]
        if weights and len(weights) < len(arms):
            missing = ", ".join(arm.name for arm in arms if arm.weight is None)
            raise ValueError(f"either all arms have a weight or none; missing: {missing}")
        if weights and sum(weights) != 100:
            raise ValueError(f"the weights {' + '.join(map(str, weights))} sum to {sum(weights)}; expected 100")
        return arms

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for field, arm in (("control", self.control), ("winner", self.winner)):
            if arm is not None and arm not in self.arm_names:
                raise ValueError(f"{field}: unknown arm {arm!r}; arms: {', '.join(self.arm_names)}")
        if twice := _duplicate([self.primary.key, *(guardrail.key for guardrail in self.guardrails)]):
            raise ValueError(f"metric {twice!r} is used twice; the primary metric and the guardrails must differ")
        signals = [guardrail.key for guardrail in self.guardrails if guardrail.signal]
        if unknown := [key for key in self.muted_signals if key not in signals]:
            raise ValueError(f"muted_signals: {unknown[0]!r} is no signal; signals: {', '.join(signals) or 'none'}")
        self._check_contents()
        self._check_state()
        return self

    def _check_contents(self) -> None:
        contents: dict[tuple[tuple[str, str], ...], str] = {}
        for arm in self.arms:
            # A version has one content, so its digest makes no difference.
            content = tuple((field, value.partition("#")[0]) for field, value in arm.changes.items())
            if contents and (content in contents) != self.aa:
                hint = "an A/A test needs equal arms" if self.aa else "set `aa` for an A/A test"
                other = contents.get(content, self.arms[0].name)
                raise ValueError(f"arms {other!r} and {arm.name!r} {'differ' if self.aa else 'are equal'}; {hint}")
            contents[content] = arm.name
            if self.status.active:
                for field in ("policy", "template"):
                    reference = arm.changes.get(field)
                    if reference is not None and not _pinned(reference):
                        raise ValueError(
                            f"arm {arm.name!r}: {field}: {reference!r} can move; a running experiment needs a version, "
                            f"such as '{reference.partition('@')[0]}@3'"
                        )

    def _check_state(self) -> None:
        if self.status is Status.DRAFT and self.percent != 0:
            raise ValueError(f"percent: is {self.percent} in a draft; expected 0")
        if self.status.active and self.percent not in self.ramp:
            raise ValueError(f"percent: {self.percent} is no step of the ramp {', '.join(map(str, self.ramp))}")
        if (self.status is Status.SHIPPED) != (self.winner is not None):
            raise ValueError(f"winner: is {self.winner!r}, status {self.status}; a shipped experiment names its winner")

    @property
    def arm_names(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms)

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of all arms except the control."""
        return tuple(name for name in self.arm_names if name != self.control)

    @property
    def weights(self) -> tuple[int, ...]:
        """Shares of the arms, in their order and in proportion to each other."""
        return tuple(1 if arm.weight is None else arm.weight for arm in self.arms)

    def next_step(self) -> int | None:
        """Return the step of the ramp behind `percent`, or None after the last."""
        return next((step for step in self.ramp if step > self.percent), None)


def _duplicate(names: list[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _pinned(reference: str) -> bool:
    return reference.partition("@")[2].partition("#")[0].isdigit()


def _apart(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return bool(some and others) and set(some).isdisjoint(others)
