"""The student's answer in steps: lines, or as much as it is sure of; and where it agrees with the teacher again."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from edge_student.student import Score, StudentSequence, Word
from shared.protocol.openai import AnswerEnd

STEP_TOKENS = 256
"""What is longer is several steps."""


@dataclass(frozen=True)
class Step:
    """What the student has written of one step. `end` is set where the answer is meant to end with it."""

    words: Sequence[Word]

    @property
    def text(self) -> str:
        return "".join(word.text for word in self.words)

    @property
    def end(self) -> AnswerEnd | None:
        return self.words[-1].end if self.words else None

    def begins_sure(self, least: float) -> bool:
        """Whether its first token that is no space was at least so probable."""
        first = next((word for word in self.words if word.text.strip() or word.end), None)
        return first is None or first.logprob is None or first.logprob >= math.log(least)


def agrees(scores: Sequence[Score], text: str, count: int) -> bool:
    """Whether the student would have written the last `count` tokens of the teacher's itself, and may go on from here.

    Not inside a number: who agrees with its first digits may not with the next.
    """
    if not count or len(scores) < count or text[-1:].isdigit():
        return False
    return all(score.rank == 0 for score in scores[-count:])


class Drafter:
    """The student's words of one sequence, a step at a time. The engine goes on writing while nobody reads."""

    def __init__(self, sequence: StudentSequence, words: AsyncGenerator[Word, None]) -> None:
        self._sequence = sequence
        self._words = words
        self._next: Word | None = None
        """The first word of the next step, where one had to be seen to know that a step was over."""

    async def lines(self, count: int) -> Step:
        """The next so many lines that are not blank; fewer where the answer ends. Raises EngineFailed."""
        words: list[Word] = []
        begun = False
        while word := await self._word():
            words.append(word)
            begun = begun or bool(word.text.strip())
            if begun and "\n" in word.text:
                count, begun = count - 1, False
            if word.end or not count or len(words) == STEP_TOKENS:
                break
        return Step(words)

    async def sure(self, least: float) -> Step:
        """As much as the student writes until all of it together is less probable to it than `least`. Raises EngineFailed.

        Up to that word's end: whoever reads it may have another vocabulary, and take half a word for a strange one.
        """
        words: list[Word] = []
        together, over, enough = 0.0, False, math.log(least)
        while word := await self._word():
            if over and word.text and not word.end and not word.text[0].isalnum():
                self._next = word
                break
            words.append(word)
            together += word.logprob or 0.0
            over = together < enough
            if word.end or len(words) == STEP_TOKENS or (over and word.text[-1:].isspace()):
                break
        return Step(words)

    async def words(self) -> AsyncGenerator[Word, None]:
        """All that is left, as it comes."""
        while word := await self._word():
            yield word

    async def _word(self) -> Word | None:
        word, self._next = self._next, None
        return word or await anext(self._words, None)

    async def close(self) -> None:
        await self._words.aclose()
        self._sequence.close()
