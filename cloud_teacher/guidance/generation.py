"""Guidance that is being written, and those who read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager

from cloud_teacher.accounting.usage import Account
from cloud_teacher.teachers.base import Piece, Teacher
from shared.protocol.guidance import FinishReason, Usage, Verdict

Item = Verdict | Piece


class Generation:
    """One piece of the engine's work. A task writes it; each reader begins at its beginning, whenever that comes.

    The task ends when the last reader leaves. It has the account of what is computed, in the name of who asked first.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.items: list[Item] = []
        self.first_usage: Usage | None = None
        """As of the first piece."""
        self.reason: FinishReason | None = None
        """Why it ended, once it has."""
        self.error: Exception | None = None
        """What ended it instead; before it was admitted, why it was not."""
        self.author: Teacher | None = None
        """Who writes it, once it is admitted."""
        self.most: Usage | None = None
        """What it can come to, once it is admitted."""
        self._expected: tuple[Teacher, Usage] | None = None
        self._readers = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self, write: Callable[[Generation], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        """Begin. Whoever starts it is its first reader."""
        self._task = asyncio.create_task(write(self))
        return self._task

    # What the writer says.

    def expect(self, author: Teacher, most: Usage) -> None:
        """A teacher is asked now, for what can come to so much. Until it has written something another may be."""
        self._expected = author, most

    def admit(self) -> None:
        """It is this teacher's, however it goes on."""
        if self._expected and not self.admitted:
            self.author, self.most = self._expected
            self._wake()

    def add(self, item: Item) -> None:
        self.admit()
        if isinstance(item, Piece) and self.first_usage is None:
            self.first_usage = self.account.usage
        self.items.append(item)
        self._wake()

    def end(self, reason: FinishReason) -> None:
        """All is written, and written down."""
        self.admit()
        self.reason = reason
        self._wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._wake()

    # What readers do.

    @property
    def admitted(self) -> bool:
        return self.most is not None

    @property
    def open(self) -> bool:
        """Whether another may still read it while it is written: not once its last reader has left."""
        return self._readers > 0 and self.error is None

    @contextmanager
    def reader(self) -> Generator[None]:
        """Be one of its readers. With the last one the work ends too."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and self._task and not self._task.done():
                self._task.cancel()

    async def until_admitted(self) -> Teacher:
        """Who writes it. Raises what keeps it from being admitted."""
        while self.author is None:
            if self.error:
                raise self.error
            await self._change()
        return self.author

    async def read(self) -> AsyncGenerator[Item, None]:
        """All that is written and will be. Raises what ends it before its end."""
        place = 0
        while True:
            while place < len(self.items):
                yield self.items[place]
                place += 1
            if self.error:
                raise self.error
            if self.reason is not None:
                return
            await self._change()

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
