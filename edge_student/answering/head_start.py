"""What the student writes while nobody knows whether the teacher's words still come.

Begun shortly before the deadline, so that a dead link costs no more than that. It is written in a sequence of its own:
the one that waits for guidance stays as it is, and goes on if the guidance comes after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from edge_student.student import StudentSequence, Word
from shared.errors import GktError

Begin = Callable[[], tuple[StudentSequence, AsyncGenerator[Word, None]]]


class HeadStart:
    """The student's words of one answer, from `after_s` seconds on. Whoever makes one closes it."""

    def __init__(self, begin: Begin, after_s: float) -> None:
        """`begin` opens a sequence and says what is written in it. Where it can't there is no head start."""
        self._begin = begin
        self._sequence: StudentSequence | None = None
        self._words: list[Word] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._write(after_s))

    @property
    def begun(self) -> bool:
        """Whether there are words."""
        return bool(self._words)

    async def words(self) -> AsyncGenerator[Word, None]:
        """All of them, as they come. Raises what `StudentSequence.generate` raises."""
        at = 0
        while True:
            while at < len(self._words):
                yield self._words[at]
                at += 1
            if self._task.done():
                await self._task
                return
            self._more.clear()
            await self._more.wait()

    def close(self) -> None:
        """Stop writing. May be called again."""
        if self._sequence:
            self._sequence.close()
        if not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # whoever reads the words has it; where nobody does, it was not needed

    async def _write(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            self._sequence, words = self._begin()
        except GktError:
            return  # the engine is full, or dead: the sequence that waits will say so
        try:
            async with aclosing(words):
                async for word in words:
                    self._words.append(word)
                    self._more.set()
        finally:
            self._sequence.close()
            self._more.set()
