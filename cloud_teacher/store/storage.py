"""The cloud's database: opened once, closed last. SQLAlchemy is imported only if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pydantic import SecretStr

from cloud_teacher.accounting.ledger import Ledger
from cloud_teacher.auth.keyring import Keyring
from cloud_teacher.registry.service import RegistryStore
from cloud_teacher.store.keyring import StoredKeyring

if TYPE_CHECKING:
    from cloud_teacher.store.rows import DayUsage

T = TypeVar("T")


class Storage:
    """Keys and ledger in one database. Raises ConfigurationError if it cannot be used."""

    def __init__(self, url: str) -> None:
        from cloud_teacher.store.database import connect
        from cloud_teacher.store.ledger import StoredLedger

        self._engine = connect(url)
        self._ledger = StoredLedger(self._engine)
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="store")

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def keyring(self, keys: Iterable[SecretStr]) -> Keyring:
        """Return a keyring with the database's keys and those of the settings."""
        from cloud_teacher.store.keys import list_keys

        return StoredKeyring(keys, lambda: self._read(partial(list_keys, self._engine, valid_only=True)))

    @property
    def registry(self) -> RegistryStore:
        from cloud_teacher.store.registry import StoredRegistry

        return StoredRegistry(self._engine, self._readers)

    async def usage(self, *, key: str | None, since: date | None, until: date | None) -> list[DayUsage]:
        """Return the usage by day and key, of one key or of all."""
        from cloud_teacher.store.rows import usage

        return await self._read(partial(usage, self._engine, key=key, since=since, until=until))

    async def _read(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, query)

    def close(self) -> None:
        """Write pending rows, and close. Blocks."""
        self._ledger.close()
        self._readers.shutdown()
        self._engine.dispose()
