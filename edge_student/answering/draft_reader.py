"""Reads the student's drafts: lines, or as much as the student is confident of."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from edge_student.student import StudentSequence, TokenOutput
from shared.protocol.openai_responses import AnswerEnd

MAX_DRAFT_TOKENS = 256
"""Longest draft. A longer line is split into several drafts."""


@dataclass(frozen=True)
class Draft:
    """Tokens that the student proposes. `end` is set if the answer should end with them."""

    tokens: Sequence[TokenOutput]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def end(self) -> AnswerEnd | None:
        return self.tokens[-1].end if self.tokens else None

    def starts_confident(self, threshold: float) -> bool:
        """Return whether the first token that is not white space had at least this probability."""
        first = next((token for token in self.tokens if token.text.strip() or token.end), None)
        return first is None or first.logprob is None or first.logprob >= math.log(threshold)


class DraftReader:
    """Reads one sequence draft by draft. The engine continues to decode between two reads."""

    def __init__(self, sequence: StudentSequence, tokens: AsyncGenerator[TokenOutput, None]) -> None:
        self._sequence = sequence
        self._tokens = tokens
        self._next: TokenOutput | None = None
        """First token of the next draft, if it had to be read to see that a draft was over."""

    async def lines(self, count: int) -> Draft:
        """Read the next `count` lines that are not blank; fewer if the answer ends. Raises EngineFailed."""
        tokens: list[TokenOutput] = []
        begun = False
        while token := await self._token():
            tokens.append(token)
            begun = begun or bool(token.text.strip())
            if begun and "\n" in token.text:
                count, begun = count - 1, False
            if token.end or not count or len(tokens) == MAX_DRAFT_TOKENS:
                break
        return Draft(tokens)

    async def confident(self, threshold: float) -> Draft:
        """Read until the joint probability of the draft falls below `threshold`. Raises EngineFailed.

        The draft extends to the end of that word: a teacher with another vocabulary would reject half a word.
        """
        tokens: list[TokenOutput] = []
        joint, over, least = 0.0, False, math.log(threshold)
        while token := await self._token():
            if over and token.text and not token.end and not token.text[0].isalnum():
                self._next = token
                break
            tokens.append(token)
            joint += token.logprob or 0.0
            over = joint < least
            if token.end or len(tokens) == MAX_DRAFT_TOKENS or (over and token.text[-1:].isspace()):
                break
        return Draft(tokens)

    async def rest(self) -> AsyncGenerator[TokenOutput, None]:
        """Yield all that is left, as it comes."""
        while token := await self._token():
            yield token

    async def close(self) -> None:
        await self._tokens.aclose()
        self._sequence.close()

    async def _token(self) -> TokenOutput | None:
        token, self._next = self._next, None
        return token or await anext(self._tokens, None)
