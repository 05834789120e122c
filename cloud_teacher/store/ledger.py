"""The ledger's one writer in a process: whatever waits is committed together, in one transaction.

A commit waits for the disk, some milliseconds. One for each stream, one after the other, would be the most a cloud could
serve; while one commit is under way the next ones gather.
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
from cloud_teacher.store.budgets import RENEW_EVERY_S, release, renew, reserve
from cloud_teacher.store.database import cause
from cloud_teacher.store.rows import write
from shared.errors import StoreFailed

logger = logging.getLogger("gkt.cloud")

MOST_AT_ONCE = 500
PAUSES_S = (0.1, 1.0)
"""Before a commit that failed is tried again."""


@dataclass(frozen=True, slots=True)
class _Job:
    entry: tuple[LedgerRow, str | None] | None
    """A row for the ledger, and the reservation that it settles."""
    work: Callable[[Connection, bool], Any] | None
    """Anything else. It is told whether it may have been done already."""
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class StoredLedger:
    """Belongs to one event loop; its thread has the only connection that writes. `close` it to have everything written."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._replica = uuid.uuid4().hex
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._renew_at = time.monotonic() + RENEW_EVERY_S
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def record(self, row: LedgerRow, reservation: str | None = None) -> asyncio.Future[None]:
        """Write a row. It is on the disk once the future is done, which raises StoreFailed; it need not be awaited."""
        return self._submit((row, reservation), None)

    async def reserve(self, request: BudgetRequest) -> Budget | None:
        """Set aside what a request can come to; which budget does not have it, if one has not. Raises StoreFailed."""
        result: Budget | None = await self._submit(
            None, lambda c, again: reserve(c, request, self._replica, again=again)
        )
        return result

    def release(self, reservation: str) -> None:
        """A reservation came to nothing."""
        self._submit(None, lambda connection, again: release(connection, reservation))

    def close(self) -> None:
        """Write what waits, and end. Blocks."""
        self._jobs.put(None)
        self._thread.join()

    def _submit(
        self, entry: tuple[LedgerRow, str | None] | None, work: Callable[[Connection, bool], Any] | None
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        future.add_done_callback(_seen)
        self._jobs.put(_Job(entry, work, future, loop))
        return future

    def _run(self) -> None:
        batch, open_ = self._gather()
        while open_ or batch:
            self._commit(batch)
            batch, open_ = self._gather() if open_ else ([], False)

    def _gather(self) -> tuple[list[_Job], bool]:
        """What waits, at least one job unless it is time to renew or to end; and whether more may come."""
        batch: list[_Job] = []
        try:
            job = self._jobs.get(timeout=max(0.0, self._renew_at - time.monotonic()))
            while job is not None:
                batch.append(job)
                if len(batch) == MOST_AT_ONCE:
                    return batch, True
                job = self._jobs.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _commit(self, batch: Sequence[_Job]) -> None:
        """One transaction for all. What was committed, but told so over a connection that broke, is not written twice."""
        for pause_s in (*PAUSES_S, None):
            again = pause_s != PAUSES_S[0]
            try:
                results = self._transaction(batch, again=again)
            except OperationalError as error:  # the database is away, or somebody keeps it locked
                failure: SQLAlchemyError = error
                if pause_s is not None:
                    time.sleep(pause_s)
            except SQLAlchemyError as error:
                failure = error
                break
            else:
                _tell(batch, results, None)
                return
        if len(batch) > 1 and not isinstance(failure, OperationalError):
            for job in batch:  # one that cannot be written must not take the others along
                self._commit([job])
            return
        logger.error("the ledger cannot be written: %s", cause(failure))
        _tell(batch, [None] * len(batch), StoreFailed("the ledger cannot be written", retry_after_s=5))

    def _transaction(self, batch: Sequence[_Job], *, again: bool) -> list[Any]:
        entries = [job.entry for job in batch if job.entry]
        with self._engine.begin() as connection:
            if entries:
                write(connection, entries, again=again)
            results = [job.work(connection, again) if job.work else None for job in batch]
            if time.monotonic() >= self._renew_at:
                renew(connection, self._replica)
                self._renew_at = time.monotonic() + RENEW_EVERY_S
        return results


def _tell(batch: Sequence[_Job], results: Sequence[Any], error: StoreFailed | None) -> None:
    """Settle all futures of a batch, each loop woken once."""

    def settle() -> None:
        for job, result in zip(batch, results, strict=True):
            if not job.future.done():
                job.future.set_exception(error) if error else job.future.set_result(result)

    if batch:
        batch[0].loop.call_soon_threadsafe(settle)


def _seen(future: asyncio.Future[Any]) -> None:
    """What nobody waits for is no news to anybody: the failure is in the log."""
    if not future.cancelled():
        future.exception()
