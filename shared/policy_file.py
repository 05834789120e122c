"""Policy files: how an edge guides requests that say nothing themselves, and the evidence for it. JSON, written by `gkt tune`."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.atomic_file import write_atomically
from shared.errors import ConfigurationError
from shared.protocol.gkt import Mode, PolicyFields
from shared.validation import describe

FORMAT: Literal[1] = 1

# Strict: a number in quotes is a mistake of whoever wrote it by hand, and no number.
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class _Part(BaseModel):
    model_config = STRICT


class Estimate(_Part):
    """A share with its interval of 95 %, two-sided; from 0 to 1."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class Evidence(_Part):
    """What the policy reached on questions that it was not chosen by."""

    task: str
    data_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    tuning_lines: str = Field(description="of the data file, as `1-500`; the policy was chosen by these")
    reporting_lines: str = Field(description="the figures below are from these")
    n: int = Field(ge=0, description="reporting questions with a verdict under student, teacher and policy")
    student: str
    teacher: str
    keep: float = Field(gt=0, le=1, description="the share of the teacher's accuracy that was asked for")
    accuracy_student: Estimate
    accuracy_teacher: Estimate
    accuracy_policy: Estimate
    kept_share: float = Field(ge=0, description="accuracy of the policy over that of the teacher")
    kept_share_low: float = Field(ge=0, description="its lower bound, one-sided, 95 %")
    shown: bool = Field(description="whether that bound is at least `keep`")
    teacher_token_share: float = Field(ge=0, description="teacher's output tokens over those of the teacher alone")
    cost_share: float = Field(ge=0, description="the teacher's cost by three prices, likewise")
    date: datetime.date
    gkt_version: str


class PolicyFile(PolicyFields):
    """What an edge does for requests that ask for model `gkt`. What is null its own settings decide."""

    model_config = STRICT

    format: Literal[1] = FORMAT
    name: str = Field(min_length=1, max_length=100, description="answers name it as `gkt.policy`")
    mode: Mode
    evidence: Evidence | None = None

    def decided(self) -> dict[str, Any]:
        """What it says of an edge's settings, by the settings' names."""
        return {name: value for name in PolicyFields.model_fields if (value := getattr(self, name)) is not None}

    def write(self, path: Path) -> None:
        """All of it or nothing. Raises ConfigurationError where the file cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise ConfigurationError(f"the policy file {path} cannot be written: {error.strerror}") from None


def read_policy_file(path: Path) -> PolicyFile:
    """Raises ConfigurationError, which names the file and the field, for one that cannot be read or is of another version."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the policy file {path} cannot be read: {error.strerror}") from None
    try:
        known: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the policy file {path} is no JSON: {error}") from None
    # Before all else: a file of another version may well have other fields, and they are not what is wrong with it.
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
