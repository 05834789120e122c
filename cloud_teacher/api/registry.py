"""`/v1/registry`: versions of templates and policies, and their labels."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends

from cloud_teacher.api.dependencies import CallerDep, CloudDep
from cloud_teacher.auth.caller import Caller, Role
from cloud_teacher.registry.artifacts import Kind, Move, Version
from shared.errors import Forbidden
from shared.protocol.registry import (
    Artifact,
    ArtifactList,
    LabelMove,
    LabelMoveRequest,
    MoveList,
    PushRequest,
    RegisteredVersion,
)

router = APIRouter(prefix="/v1/registry")


class Plural(StrEnum):
    """Kinds as paths name them."""

    TEMPLATES = "templates"
    POLICIES = "policies"


async def _kind(kind: Plural) -> Kind:
    return Kind.TEMPLATE if kind is Plural.TEMPLATES else Kind.POLICY


KindDep = Annotated[Kind, Depends(_kind)]


class LabelPath(NamedTuple):
    """A label that a path names."""

    kind: Kind
    name: str
    label: str


async def _movable(kind: KindDep, name: str, label: str, cloud: CloudDep, caller: CallerDep) -> LabelPath:
    """Raises Forbidden if the caller may not move the label."""
    _need(caller, Role.OPERATOR if label in cloud.protected_labels else Role.EDITOR)
    return LabelPath(kind, name, label)


MovableDep = Annotated[LabelPath, Depends(_movable)]


@router.get("/{kind}")
async def list_artifacts(kind: KindDep, cloud: CloudDep, caller: CallerDep) -> ArtifactList:
    """List names with their newest version and their labels."""
    registry = cloud.registry
    return ArtifactList(
        artifacts=[
            Artifact(
                name=name,
                versions=[version.version for version in registry.versions(kind, name)],
                labels=registry.labels(kind, name),
            )
            for name in registry.names(kind)
        ]
    )


@router.get("/{kind}/{name}/versions/{reference}")
async def show(kind: KindDep, name: str, reference: str, cloud: CloudDep, caller: CallerDep) -> RegisteredVersion:
    """Return one version with its content, by number, label or `NUMBER#DIGEST`."""
    return _version(cloud.registry.get(kind, f"{name}@{reference}"))


@router.post("/{kind}/{name}/versions", status_code=201)
async def push(kind: KindDep, name: str, body: PushRequest, cloud: CloudDep, caller: CallerDep) -> RegisteredVersion:
    """Add a version. Content that equals the newest version's adds none."""
    _need(caller, Role.EDITOR)
    return _version(await cloud.registry.push(kind, name, body.content, author=caller.name, message=body.message))


@router.put("/{kind}/{name}/labels/{label}")
async def move(label: MovableDep, body: LabelMoveRequest, cloud: CloudDep, caller: CallerDep) -> LabelMove:
    """Point a label at a version. Without a reference the label is removed."""
    moved = await cloud.registry.move(*label, body.reference, author=caller.name, reason=body.reason)
    return _move(moved)


@router.post("/{kind}/{name}/labels/{label}/rollback")
async def rollback(label: MovableDep, body: LabelMoveRequest, cloud: CloudDep, caller: CallerDep) -> LabelMove:
    """Point a label at the version it pointed at before its last move."""
    return _move(await cloud.registry.rollback(*label, author=caller.name, reason=body.reason))


@router.get("/{kind}/{name}/moves")
async def moves(kind: KindDep, name: str, cloud: CloudDep, caller: CallerDep, label: str | None = None) -> MoveList:
    """List the moves of labels, newest first."""
    return MoveList(moves=[_move(found) for found in await cloud.registry.moves(kind, name, label)])


def _need(caller: Caller, role: Role) -> None:
    if not caller.role.allows(role):
        raise Forbidden(f"key {caller.name} has the role {caller.role}; this needs {role}")


def _version(version: Version) -> RegisteredVersion:
    return RegisteredVersion.model_validate({**asdict(version), "kind": version.kind.value})


def _move(move: Move) -> LabelMove:
    return LabelMove.model_validate(asdict(move))
