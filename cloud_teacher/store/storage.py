"""The cloud's database as the service holds it: opened once, closed last. SQLAlchemy is imported where there is one."""

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
    """Keys and ledger in one database. Raises ConfigurationError where that cannot be used."""

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
        """The database's keys beside those of the settings."""
        from cloud_teacher.store.keys import every

        return StoredKeyring(keys, lambda: self._read(partial(every, self._engine, working=True)))

    @property
    def registry(self) -> RegistryStore:
        from cloud_teacher.store.registry import StoredRegistry

        return StoredRegistry(self._engine, self._readers)

    async def usage(self, *, key: str | None, since: date | None, until: date | None) -> list[DayUsage]:
        """By day and key, of one key or of all."""
        from cloud_teacher.store.rows import usage

        return await self._read(partial(usage, self._engine, key=key, since=since, until=until))

    async def _read(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, query)

    def close(self) -> None:
        """Write what waits. Blocks."""
        self._ledger.close()
        self._readers.shutdown()
        self._engine.dispose()
