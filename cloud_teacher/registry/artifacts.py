"""Artifacts of the registry: immutable versions of templates and policies, checked by the code that will use them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import yaml
from pydantic import ValidationError

from shared.errors import ConfigurationError, InvalidRequest
from shared.policy_file import PolicyFile
from shared.prompting.templates import FENCE, Template, load_front_matter, parse_template, split_template
from shared.protocol.guidance import Message
from shared.protocol.registry import MAX_CONTENT_CHARS
from shared.validation import describe

NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}", re.ASCII)
LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,35}", re.ASCII)
PRODUCTION, LATEST = "production", "latest"
"""`production` is what a bare name means. `latest` is always the newest version, so nobody can move it."""
_SAMPLE = [Message(role="system", content="Be brief."), Message(role="user", content="What is 2 + 2?")]


class Kind(StrEnum):
    """Kinds of artifacts."""

    TEMPLATE = "template"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version."""

    kind: Kind
    name: str
    version: int
    digest: str
    """SHA-256 of the content, hex."""
    content: str
    author: str
    """Name of the key that pushed it, or `package`."""
    message: str
    created_ms: int
    """Milliseconds since 1970."""

    @property
    def identity(self) -> str:
        """Reference that names exactly this content: `name@version#digest`."""
        return f"{self.name}@{self.version}#{self.digest[:8]}"


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a label. Without a target the label was removed."""

    kind: Kind
    name: str
    label: str
    from_version: int | None
    to_version: int | None
    author: str
    reason: str
    moved_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All versions and labels at one revision of the registry."""

    revision: int = 0
    versions: tuple[Version, ...] = ()
    """Ordered by kind, name and version."""
    labels: Mapping[tuple[Kind, str, str], int] = field(default_factory=dict)
    """(kind, name, label) to version."""


def check_name(name: str) -> str:
    """Return a valid name. Raises InvalidRequest."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a name: expected a lower-case letter, then up to 59 of a-z, 0-9, `_`, `-`", param="name"
        )
    return name


def check_label(label: str) -> str:
    """Return a label that can be moved. Raises InvalidRequest."""
    if not LABEL.fullmatch(label) or label.isdigit():
        raise InvalidRequest(
            f"{label!r} is not a label: expected up to 36 of a-z, 0-9, `_`, `.`, `-`, not a number alone", param="label"
        )
    if label == LATEST:
        raise InvalidRequest("`latest` moves by itself: it is always the newest version", param="label")
    return label


def digest_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def canonical(kind: Kind, name: str, content: str, version: int) -> str:
    """Return the content as it is stored under a version number. Raises InvalidRequest if it is not valid.

    A template's front matter may leave out `name` and `version`; a policy may leave out `name` and `format`.
    """
    try:
        _check_length(content)
        match kind:
            case Kind.TEMPLATE:
                stored = _canonical_template(name, content, version)
            case Kind.POLICY:
                stored = _canonical_policy(name, content)
        _check_length(stored)
    except ConfigurationError as error:
        raise InvalidRequest(f"content: {error.message}", param="content") from None
    return stored


def is_same(known: Version, content: str) -> bool:
    """Return whether valid content differs from a version in number and layout at most. The version is not checked again."""
    return (
        content == known.content or digest_of(canonical(known.kind, known.name, content, known.version)) == known.digest
    )


def template_of(version: Version) -> Template:
    """Return the template of a version. Raises ConfigurationError."""
    return parse_template(version.content.encode(), source=f"{version.name}@{version.version}")


def _check_length(content: str) -> None:
    if len(content) > MAX_CONTENT_CHARS:
        raise ConfigurationError(f"{len(content)} characters; the limit is {MAX_CONTENT_CHARS}")
    if "\0" in content:
        raise ConfigurationError("it has a NUL character")


def _canonical_template(name: str, content: str, version: int) -> str:
    source = f"template {name}"
    text = content.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        front, body = split_template(text)
        fields = load_front_matter(front) or {}
    except RecursionError:
        raise ConfigurationError(f"{source}: the front matter is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{source}: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{source}: the front matter is a {type(fields).__name__}; expected a mapping")
    if fields.setdefault("name", name) != name:
        raise ConfigurationError(f"{source}: its front matter names {str(fields['name'])[:60]!r}")
    fields["version"] = version
    order = ("name", "version", "summary", "system", "conversation")
    ordered = {key: fields[key] for key in order if key in fields} | fields
    front = yaml.safe_dump(ordered, sort_keys=False, width=120)
    stored = f"{FENCE}{front}{FENCE}{body}\n"
    _render(parse_template(stored.encode(), source=source))
    return stored


def _render(template: Template) -> None:
    """Apply a template to a conversation, so that one that fails to render is refused. Raises ConfigurationError."""
    try:
        template.apply(_SAMPLE, answer="2 + 2 = 4")
    except InvalidRequest as error:
        raise ConfigurationError(error.message) from error


def _canonical_policy(name: str, content: str) -> str:
    try:
        fields: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"policy {name} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigurationError(f"policy {name} is a {type(fields).__name__}; expected an object")
    fields.setdefault("format", 1)
    if fields.setdefault("name", name) != name:
        raise ConfigurationError(f"policy {name}: its name is {fields['name']!r}")
    try:
        policy = PolicyFile.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise ConfigurationError(f"policy {name}: {describe(error)}") from None
    return policy.model_dump_json(indent=2, exclude_none=True) + "\n"
