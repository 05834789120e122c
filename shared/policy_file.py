"""Policy files: JSON with an edge's defaults for guidance, and the evidence for them. `gkt tune` writes them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.atomic_file import write_atomically
from shared.errors import ConfigurationError
from shared.protocol.gkt import ModeName, PolicyFields
from shared.validation import describe

FORMAT: Literal[1] = 1

# Strict: a number in quotes is a mistake in a file written by hand.
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class _Part(BaseModel):
    model_config = STRICT


class Estimate(_Part):
    """A fraction from 0 to 1 with its two-sided interval of 95 %."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class Evidence(_Part):
    """Results of the policy on questions that were not used to choose it."""

    task: str
    data_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    tuning_lines: str = Field(description="lines of the data file, as `1-500`, by which the policy was chosen")
    reporting_lines: str = Field(description="lines of the data file from which the figures below are")
    n: int = Field(ge=0, description="reporting questions with a verdict under student, teacher and policy")
    student: str
    teacher: str
    keep: float = Field(gt=0, le=1, description="wanted fraction of the teacher's accuracy")
    accuracy_student: Estimate
    accuracy_teacher: Estimate
    accuracy_policy: Estimate
    kept_share: float = Field(ge=0, description="accuracy of the policy, divided by the teacher's")
    kept_share_low: float = Field(ge=0, description="one-sided lower bound of kept_share, 95 %")
    shown: bool = Field(description="true if that bound is at least `keep`")
    teacher_token_share: float = Field(
        ge=0, description="output tokens of the teacher, divided by those of the teacher alone"
    )
    cost_share: float = Field(
        ge=0, description="cost of the teacher by three prices, divided by that of the teacher alone"
    )
    date: datetime.date
    gkt_version: str


class PolicyFile(PolicyFields):
    """Defaults of an edge for requests to model `gkt`. The edge's settings decide null fields."""

    model_config = STRICT

    format: Literal[1] = FORMAT
    name: str = Field(min_length=1, max_length=100, description="name in the report of answers, `gkt.policy`")
    mode: ModeName
    evidence: Evidence | None = None

    def decided(self) -> dict[str, Any]:
        """Return the fields that are set, by the names of the edge's settings."""
        return {name: value for name in PolicyFields.model_fields if (value := getattr(self, name)) is not None}

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises ConfigurationError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise ConfigurationError(f"the policy file {path} cannot be written: {error.strerror}") from None


def read_policy_file(path: Path) -> PolicyFile:
    """Read a policy file. Raises ConfigurationError, which names the file and the field."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the policy file {path} cannot be read: {error.strerror}") from None
    try:
        known: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the policy file {path} is not JSON: {error}") from None
    # Checked first: a file of another version may have other fields, and they are not the problem.
    if isinstance(known, dict) and "format" not in known:
        raise ConfigurationError(f"the policy file {path}: format: is missing; this gkt reads format {FORMAT}")
    if isinstance(known, dict) and (known["format"] != FORMAT or isinstance(known["format"], bool)):
        raise ConfigurationError(
            f"the policy file {path}: format: is {known['format']!r}; this gkt reads format {FORMAT}"
        )
    try:
        return PolicyFile.model_validate_json(content)
    except ValidationError as error:
        raise ConfigurationError(f"the policy file {path}: {describe(error)}") from None
