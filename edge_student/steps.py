"""The student's answer in steps: a line, or several; what it is sure of, and where it agrees with the teacher again."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from edge_student.student import Score, StudentSequence, Word
from shared.openai import AnswerEnd

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

    def sure(self, least: float) -> bool:
        """Whether every token was at least so probable to the student."""
        return all(word.logprob is None or word.logprob >= math.log(least) for word in self.words)

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

    async def step(self, lines: int, sure: float) -> Step:
        """The next lines that are not blank; fewer where the answer ends. Raises EngineFailed.

        It goes on, line by line, while the student is `sure` of all of it; 0: it does not.
        """
        words: list[Word] = []
        begun = False
        async for word in self._words:
            words.append(word)
            begun = begun or bool(word.text.strip())
            if begun and "\n" in word.text:
                lines, begun = lines - 1, False
                if not lines and sure and Step(words).sure(sure):
                    lines = 1
            if word.end or not lines or len(words) == STEP_TOKENS:
                break
        return Step(words)

    async def words(self) -> AsyncGenerator[Word, None]:
        """All that is left, as it comes."""
        async for word in self._words:
            yield word

    async def close(self) -> None:
        await self._words.aclose()
        self._sequence.close()
