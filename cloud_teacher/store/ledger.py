"""The ledger's only writer in a process. It commits all pending writes in one transaction.

A commit waits some milliseconds for the disk. A commit per request would limit the requests per second; so writes gather while
a commit runs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cloud_teacher.accounting.ledger import Budget, BudgetRequest, LedgerRow
from cloud_teacher.store.budgets import RENEWAL_INTERVAL_S, release, renew, reserve
from cloud_teacher.store.database import cause
from cloud_teacher.store.rows import write
from shared.errors import StoreFailed

logger = logging.getLogger("gkt.cloud")

MAX_BATCH = 500
RETRY_DELAYS_S = (0.1, 1.0)
"""Pauses before a failed commit is retried."""


@dataclass(frozen=True, slots=True)
class _Write:
    entry: tuple[LedgerRow, str | None] | None
    """A row, and the reservation that it settles."""
    work: Callable[[Connection, bool], Any] | None
    """Any other work. Its second argument is True if a former attempt may have done it."""
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class StoredLedger:
    """Belongs to one event loop. Its thread has the only connection that writes. `close` writes everything that is pending."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._replica = uuid.uuid4().hex
        self._writes: SimpleQueue[_Write | None] = SimpleQueue()
        self._renew_at = time.monotonic() + RENEWAL_INTERVAL_S
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def record(self, row: LedgerRow, reservation: str | None = None) -> asyncio.Future[None]:
        """Write a row. The future is done once it is on disk, raises StoreFailed, and need not be awaited."""
        return self._submit((row, reservation), None)

    async def reserve(self, request: BudgetRequest) -> Budget | None:
        """Reserve part of a daily budget. Returns None, or the budget that has too little left. Raises StoreFailed."""
        result: Budget | None = await self._submit(
            None, lambda c, again: reserve(c, request, self._replica, again=again)
        )
        return result

    def release(self, reservation: str) -> None:
        """Cancel a reservation."""
        self._submit(None, lambda connection, again: release(connection, reservation))

    def close(self) -> None:
        """Write everything that is pending, and end. Blocks."""
        self._writes.put(None)
        self._thread.join()

    def _submit(
        self, entry: tuple[LedgerRow, str | None] | None, work: Callable[[Connection, bool], Any] | None
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        future.add_done_callback(_retrieve)
        self._writes.put(_Write(entry, work, future, loop))
        return future

    def _run(self) -> None:
        batch, is_open = self._gather()
        while is_open or batch:
            self._commit(batch)
            batch, is_open = self._gather() if is_open else ([], False)

    def _gather(self) -> tuple[list[_Write], bool]:
        """Return pending writes (none if it is time to renew or to end), and False if the ledger is closed."""
        batch: list[_Write] = []
        try:
            item = self._writes.get(timeout=max(0.0, self._renew_at - time.monotonic()))
            while item is not None:
                batch.append(item)
                if len(batch) == MAX_BATCH:
                    return batch, True
                item = self._writes.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _commit(self, batch: Sequence[_Write]) -> None:
        """Write a batch in one transaction. A retry skips what a commit with a lost reply has written."""
        for pause_s in (*RETRY_DELAYS_S, None):
            again = pause_s != RETRY_DELAYS_S[0]
            try:
                results = self._transaction(batch, again=again)
            except OperationalError as error:  # unreachable or locked
                failure: SQLAlchemyError = error
                if pause_s is not None:
                    time.sleep(pause_s)
            except SQLAlchemyError as error:
                failure = error
                break
            else:
                _settle(batch, results, None)
                return
        if len(batch) > 1 and not isinstance(failure, OperationalError):
            for item in batch:  # an invalid write must not fail the others
                self._commit([item])
            return
        logger.error("the ledger cannot be written: %s", cause(failure))
        _settle(batch, [None] * len(batch), StoreFailed("the ledger cannot be written", retry_after_s=5))

    def _transaction(self, batch: Sequence[_Write], *, again: bool) -> list[Any]:
        entries = [item.entry for item in batch if item.entry]
        with self._engine.begin() as connection:
            if entries:
                write(connection, entries, again=again)
            results = [item.work(connection, again) if item.work else None for item in batch]
            if time.monotonic() >= self._renew_at:
                renew(connection, self._replica)
                self._renew_at = time.monotonic() + RENEWAL_INTERVAL_S
        return results


def _settle(batch: Sequence[_Write], results: Sequence[Any], error: StoreFailed | None) -> None:
    """Set the results of all futures of a batch, and wake the event loop once."""

    def set_results() -> None:
        for item, result in zip(batch, results, strict=True):
            if not item.future.done():
                item.future.set_exception(error) if error else item.future.set_result(result)

    if batch:
        batch[0].loop.call_soon_threadsafe(set_results)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a future that is not awaited; the failure is logged already."""
    if not future.cancelled():
        future.exception()
