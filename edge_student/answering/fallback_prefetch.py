"""Local decoding that starts shortly before the first-token deadline.

A dead link then costs no more than the time until that start. The tokens come from a sequence of their own: the sequence that
waits for guidance stays as it is, and continues if guidance arrives after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from edge_student.student import StudentSequence, TokenOutput
from shared.errors import GktError

StartDecoding = Callable[[], tuple[StudentSequence, AsyncGenerator[TokenOutput, None]]]


class FallbackPrefetch:
    """Decodes one answer from `after_s` seconds on, until it is closed."""

    def __init__(self, start: StartDecoding, after_s: float) -> None:
        """`start` opens a sequence and returns its tokens. If it raises a GktError there is no prefetch."""
        self._start = start
        self._sequence: StudentSequence | None = None
        self._tokens: list[TokenOutput] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._decode(after_s))

    @property
    def started(self) -> bool:
        """True if there are tokens."""
        return bool(self._tokens)

    async def tokens(self) -> AsyncGenerator[TokenOutput, None]:
        """Yield all tokens, as they come. Raises what `StudentSequence.generate` raises."""
        at = 0
        while True:
            while at < len(self._tokens):
                yield self._tokens[at]
                at += 1
            if self._task.done():
                await self._task
                return
            self._more.clear()
            await self._more.wait()

    def close(self) -> None:
        """Stop decoding. May be called again."""
        if self._sequence:
            self._sequence.close()
        if not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # A reader of the tokens has seen it; without a reader the tokens were not needed.

    async def _decode(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            self._sequence, tokens = self._start()
        except GktError:
            return  # The engine is full or dead. The sequence that waits for guidance raises the same.
        try:
            async with aclosing(tokens):
                async for token in tokens:
                    self._tokens.append(token)
                    self._more.set()
        finally:
            self._sequence.close()
            self._more.set()
