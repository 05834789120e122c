"""The registry's tables: versions that never change, and moves of labels that are only appended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine, RowMapping, func, select
from sqlalchemy.exc import SQLAlchemyError

from cloud_teacher.registry.artifacts import Kind, Move, Snapshot, Version
from cloud_teacher.store.database import cause, now_ms, reading
from cloud_teacher.store.tables import registry_moves, registry_revision, registry_versions
from shared.errors import Conflict, NotFound, StoreFailed

T = TypeVar("T")


class StoredRegistry:
    """The registry in the database. Queries run in threads of their own. Raises StoreFailed."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    async def revision(self) -> int:
        """Return the number of the newest change."""
        return await self._run(partial(_revision, self._engine))

    async def snapshot(self) -> Snapshot:
        """Return all versions and labels."""
        return await self._run(partial(_snapshot, self._engine))

    async def add_version(
        self, kind: Kind, name: str, version: int, *, digest: str, content: str, author: str, message: str
    ) -> Version:
        """Add the next version. Raises Conflict if its number is taken."""
        new = Version(kind, name, version, digest, content, author, message, now_ms())
        await self._run(partial(_add_version, self._engine, new))
        return new

    async def move_label(
        self, kind: Kind, name: str, label: str, *, to_version: int | None, author: str, reason: str
    ) -> Move:
        """Point a label at a version, or remove it. Raises NotFound."""
        move = partial(_move_label, self._engine, kind, name, label)
        return await self._run(partial(move, to_version=to_version, author=author, reason=reason))

    async def moves(self, kind: Kind, name: str, label: str | None = None) -> list[Move]:
        """Return the moves of labels, newest first."""
        return await self._run(partial(_moves, self._engine, kind, name, label))

    async def _run(self, query: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, query)
        except SQLAlchemyError as error:
            raise StoreFailed(f"the registry's database failed: {cause(error)}", retry_after_s=5) from error


def _revision(engine: Engine) -> int:
    """Return the number of the newest change."""
    with reading(engine).begin() as connection:
        return connection.scalar(select(registry_revision.c.revision)) or 0


def _snapshot(engine: Engine) -> Snapshot:
    """Read everything in one transaction."""
    order = (registry_versions.c.kind, registry_versions.c.name, registry_versions.c.version)
    with reading(engine).begin() as connection:
        number = connection.scalar(select(registry_revision.c.revision)) or 0
        versions = tuple(
            _version(row) for row in connection.execute(select(registry_versions).order_by(*order)).mappings()
        )
        rows = connection.execute(select(registry_moves).order_by(registry_moves.c.id)).mappings().all()
    labels = {(Kind(row["kind"]), row["name"], row["label"]): row["to_version"] for row in rows}
    return Snapshot(number, versions, {label: version for label, version in labels.items() if version is not None})


def _add_version(engine: Engine, new: Version) -> None:
    with engine.begin() as connection:
        _count_change(connection)
        table = registry_versions
        query = select(func.max(table.c.version)).where(table.c.kind == new.kind, table.c.name == new.name)
        newest = connection.scalar(query) or 0
        if newest >= new.version:
            raise Conflict(f"{new.kind} {new.name} has version {newest} by now; expected {new.version - 1}")
        connection.execute(table.insert().values(asdict(new)))


def _move_label(
    engine: Engine, kind: Kind, name: str, label: str, *, to_version: int | None, author: str, reason: str
) -> Move:
    """Point a label at a version, or remove it. Raises NotFound."""
    with engine.begin() as connection:
        _count_change(connection)
        if to_version is not None and not _exists(connection, kind, name, to_version):
            raise NotFound(f"{kind} {name} has no version {to_version}")
        found = registry_moves
        from_version = connection.scalar(
            select(found.c.to_version)
            .where(found.c.kind == kind, found.c.name == name, found.c.label == label)
            .order_by(found.c.id.desc())
            .limit(1)
        )
        if to_version is None and from_version is None:
            raise NotFound(f"{kind} {name} has no label {label}")
        move = Move(kind, name, label, from_version, to_version, author, reason, now_ms())
        connection.execute(registry_moves.insert().values(asdict(move)))
    return move


def _moves(engine: Engine, kind: Kind, name: str, label: str | None = None) -> list[Move]:
    """Return the moves of an artifact's labels, newest first."""
    query = select(registry_moves).where(registry_moves.c.kind == kind, registry_moves.c.name == name)
    if label is not None:
        query = query.where(registry_moves.c.label == label)
    with reading(engine).begin() as connection:
        rows = connection.execute(query.order_by(registry_moves.c.id.desc())).mappings()
        return [_move(row) for row in rows]


def _count_change(connection: Connection) -> None:
    """Count a change first: it locks the row, so that changes follow one another on PostgreSQL too."""
    connection.execute(registry_revision.update().values(revision=registry_revision.c.revision + 1))


def _exists(connection: Connection, kind: Kind, name: str, version: int) -> bool:
    table = registry_versions
    query = select(table.c.version).where(table.c.kind == kind, table.c.name == name, table.c.version == version)
    return connection.scalar(query) is not None


def _version(row: RowMapping) -> Version:
    return Version(**{**row, "kind": Kind(row["kind"])})


def _move(row: RowMapping) -> Move:
    fields = {name: row[name] for name in Move.__dataclass_fields__}
    return Move(**{**fields, "kind": Kind(row["kind"])})
