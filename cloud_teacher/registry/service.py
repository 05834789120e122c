"""The registry as the service uses it: a snapshot in memory that follows the database, and the changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from cloud_teacher.registry.artifacts import (
    LATEST,
    PRODUCTION,
    Kind,
    Move,
    Snapshot,
    Version,
    canonical,
    check_label,
    check_name,
    digest_of,
    is_same,
    template_of,
)
from shared.errors import ConfigurationError, Conflict, GktError, InvalidRequest, NotFound, StoreFailed
from shared.prompting.templates import Template, Templates

logger = logging.getLogger("gkt.cloud")

REFRESH_INTERVAL_S = 1.0
"""Changes made elsewhere take effect within this time."""
PACKAGE = "package"
"""Author of the templates that come with gkt."""
MAX_ATTEMPTS = 5
"""Attempts to take the next version number while others push too."""


class RegistryStore(Protocol):
    """The registry's tables. Methods raise StoreFailed if the database cannot be reached."""

    async def revision(self) -> int: ...

    async def snapshot(self) -> Snapshot: ...

    async def add_version(
        self, kind: Kind, name: str, version: int, *, digest: str, content: str, author: str, message: str
    ) -> Version:
        """Add the next version. Raises Conflict if its number is taken."""
        ...

    async def move_label(
        self, kind: Kind, name: str, label: str, *, to_version: int | None, author: str, reason: str
    ) -> Move:
        """Point a label at a version, or remove it. Raises NotFound."""
        ...

    async def moves(self, kind: Kind, name: str, label: str | None = None) -> list[Move]: ...


class RegistryView:
    """Templates and policies of one snapshot, by reference: `name`, `name@3`, `name@label` or `name@3#digest`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._compiled: dict[str, Template | None] = {}
        """Templates by digest; None for those that cannot be used."""
        self._use(snapshot)

    @property
    def templates(self) -> Templates:
        """All templates, as of the last refresh."""
        return self._templates

    def names(self, kind: Kind) -> list[str]:
        return sorted({version.name for version in self._snapshot.versions if version.kind is kind})

    def versions(self, kind: Kind, name: str) -> list[Version]:
        """Return the versions of a name, oldest first."""
        return [found for found in self._snapshot.versions if found.kind is kind and found.name == name]

    def labels(self, kind: Kind, name: str) -> dict[str, int]:
        """Return the labels of a name, `latest` included."""
        versions = self.versions(kind, name)
        latest = {LATEST: versions[-1].version} if versions else {}
        return latest | {
            label: version for (k, n, label), version in sorted(self._snapshot.labels.items()) if (k, n) == (kind, name)
        }

    def get(self, kind: Kind, reference: str) -> Version:
        """Resolve a reference. Raises NotFound, InvalidRequest if a digest does not match."""
        name, at, selector = reference.partition("@")
        selector, hash_, digest = selector.partition("#")
        versions = {str(version.version): version for version in self.versions(kind, name)}
        if not versions:
            known = ", ".join(self.names(kind)) or "none"
            raise NotFound(f"{kind} {name!r} not found; available: {known}", param=kind)
        labels = self.labels(kind, name)
        if not at:
            selector = PRODUCTION if PRODUCTION in labels else LATEST
        found = versions.get(selector) or versions.get(str(labels.get(selector)))
        if found is None:
            available = ", ".join([*versions, *labels])
            raise NotFound(f"{kind} {name} has no version or label {selector!r}; available: {available}", param=kind)
        if hash_ and not (digest and found.digest.startswith(digest)):
            raise InvalidRequest(
                f"{kind} {name}@{found.version} has digest {found.digest[:8]}; expected {digest}", param=kind
            )
        return found

    def _use(self, snapshot: Snapshot) -> None:
        """Serve a snapshot. Templates that are known are not compiled again."""
        compiled: dict[str, Template | None] = {}
        for version in snapshot.versions:
            if version.kind is Kind.TEMPLATE:
                known = version.digest in self._compiled
                compiled[version.digest] = self._compiled[version.digest] if known else _compile(version)
        labels = {(n, label): version for (kind, n, label), version in snapshot.labels.items() if kind is Kind.TEMPLATE}
        self._snapshot, self._compiled = snapshot, compiled
        self._templates = Templates((template for template in compiled.values() if template), labels)


def _compile(version: Version) -> Template | None:
    """Return a version's template, or None if this release cannot read it, as it may happen after a downgrade."""
    try:
        return template_of(version)
    except ConfigurationError as error:
        logger.error("the registry's template %s cannot be used: %s", version.identity, error.message)
        return None


class Registry(RegistryView):
    """The registry of one replica: it follows the database, and changes it.

    Without a store it holds the packaged templates alone and cannot be changed.
    """

    def __init__(self, packaged: Templates, store: RegistryStore | None = None) -> None:
        self._packaged = packaged
        self._store = store
        super().__init__(Snapshot(versions=tuple(_packaged(packaged))))

    async def read(self) -> None:
        """Add packaged templates that the database does not have yet, and read everything."""
        if self._store is None:
            return
        self._use(await self._store.snapshot())
        for version in _packaged(self._packaged):
            await self._add_packaged(version)

    async def refresh(self) -> None:
        """Follow changes until cancelled. While the database is away, the last snapshot serves."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            try:
                await self._sync()
            except GktError as error:
                logger.error("the registry cannot be read: %s", error.message)
            except Exception as error:  # noqa: BLE001 - drivers raise errors of many kinds
                logger.error("the registry cannot be read: %s", type(error).__name__)

    async def push(self, kind: Kind, name: str, content: str, *, author: str, message: str = "") -> Version:
        """Add a version. Content that equals the newest version's adds none and returns that one.

        Raises InvalidRequest, StoreFailed, Conflict.
        """
        check_name(name)
        canonical(kind, name, content, 1)  # what is not valid is refused before the database is asked
        await self._sync()
        for _ in range(MAX_ATTEMPTS):
            versions = self.versions(kind, name)
            if versions and is_same(versions[-1], content):
                return versions[-1]
            number = versions[-1].version + 1 if versions else 1
            try:
                return await self._add(
                    kind, name, number, canonical(kind, name, content, number), author=author, message=message
                )
            except Conflict:
                self._use(await self._writable().snapshot())
        raise Conflict(f"{kind} {name}: others push at the same time. Try again")

    async def move(
        self, kind: Kind, name: str, label: str, reference: str | None, *, author: str, reason: str = ""
    ) -> Move:
        """Point a label at `name@reference`, or remove it without one. Raises InvalidRequest, NotFound, StoreFailed."""
        store = self._writable()
        check_name(name)
        check_label(label)
        await self._sync()
        target = None if reference is None else self.get(kind, f"{name}@{reference}").version
        move = await store.move_label(kind, name, label, to_version=target, author=author, reason=reason)
        self._use(await store.snapshot())
        return move

    async def rollback(self, kind: Kind, name: str, label: str, *, author: str, reason: str = "") -> Move:
        """Undo the last move of a label; the first move of all is undone by removing it. Raises NotFound if there is none."""
        check_name(name)
        check_label(label)
        moves = await self._writable().moves(kind, name, label)
        if moves:
            before = moves[0].from_version
            target = None if before is None else str(before)
            return await self.move(kind, name, label, target, author=author, reason=reason)
        raise NotFound(f"{kind} {name}: the label {label} was never moved")

    async def moves(self, kind: Kind, name: str, label: str | None = None) -> list[Move]:
        """Return the moves of labels, newest first."""
        check_name(name)
        if label is not None:
            check_label(label)
        return await self._store.moves(kind, name, label) if self._store else []

    async def _add_packaged(self, packaged: Version) -> None:
        """Add a packaged template unless it is there, under its own number if that is the next one."""
        kind, name = packaged.kind, packaged.name
        for _ in range(MAX_ATTEMPTS):
            versions = self.versions(kind, name)
            if any(is_same(known, packaged.content) for known in versions):
                return
            number = versions[-1].version + 1 if versions else packaged.version
            same = number == packaged.version
            content = packaged.content if same else canonical(kind, name, packaged.content, number)
            try:
                await self._add(kind, name, number, content, author=PACKAGE, message=packaged.message)
            except Conflict:
                self._use(await self._writable().snapshot())

    async def _add(self, kind: Kind, name: str, number: int, content: str, *, author: str, message: str) -> Version:
        store = self._writable()
        added = await store.add_version(
            kind, name, number, digest=digest_of(content), content=content, author=author, message=message
        )
        self._use(await store.snapshot())
        return added

    def _writable(self) -> RegistryStore:
        if self._store is None:
            raise StoreFailed("the registry has no database: set GKT_CLOUD_STORE_URL")
        return self._store

    async def _sync(self) -> None:
        """Read the database if another replica has changed it."""
        if self._store and await self._store.revision() != self._snapshot.revision:
            self._use(await self._store.snapshot())


def _packaged(templates: Templates) -> Sequence[Version]:
    return [
        Version(
            Kind.TEMPLATE,
            template.name,
            template.version,
            digest_of(template.content),
            template.content,
            PACKAGE,
            template.summary,
            0,
        )
        for template in templates
    ]
