"""Messages of the registry, `/v1/registry`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from shared.protocol.guidance import Text, WireModel


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it has a NUL character")
    return text


Stored = Annotated[Text, AfterValidator(_without_nul)]
"""Text that every database can store."""

MAX_CONTENT_CHARS = 100_000
"""Longest content of a version."""


class PushRequest(WireModel):
    """Body of a push."""

    model_config = ConfigDict(extra="forbid")

    content: Stored = Field(max_length=MAX_CONTENT_CHARS, description="a template file, or a policy file")
    message: Stored = Field(default="", max_length=1000, description="what changed, and why")


class LabelMoveRequest(WireModel):
    """Body of a move or a rollback."""

    model_config = ConfigDict(extra="forbid")

    reference: str | None = Field(
        default=None,
        max_length=100,
        description="version number, label, or `NUMBER#DIGEST`. If unset, the label is removed",
    )
    reason: Stored = Field(default="", max_length=1000)


class RegisteredVersion(WireModel):
    """One immutable version."""

    kind: Literal["template", "policy"]
    name: str
    version: int
    digest: str = Field(description="SHA-256 of the content, hex")
    content: str
    author: str
    message: str
    created_ms: int = Field(
        description="milliseconds since 1970; 0 for packaged templates of a cloud without a database"
    )


class Artifact(WireModel):
    """One template or policy."""

    name: str
    versions: list[int]
    labels: dict[str, int]


class ArtifactList(WireModel):
    artifacts: list[Artifact]


class LabelMove(WireModel):
    """One move of a label. Without `to_version` the label was removed."""

    name: str
    label: str
    from_version: int | None
    to_version: int | None
    author: str
    reason: str
    moved_ms: int


class MoveList(WireModel):
    moves: list[LabelMove]
