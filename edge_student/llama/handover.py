"""The handover: guidance is fed to the engine while it arrives, and retokenised as a whole before the student continues it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from edge_student.llama.engine import Engine
from edge_student.llama.engine_sequence import EngineSequence
from edge_student.llama.sampling import Sampler
from edge_student.student import Score, StudentSampling, TokenOutput

FEED_TOKENS = 4
"""Fewest new tokens of guidance that are passed to the engine at once, except for prefill ahead. The handover passes the rest."""


class GuidanceTokenizer(Protocol):
    """The parts of the student that a sequence needs."""

    context_tokens: int

    def continuation(self, text: str) -> list[int]:
        """Return the token ids of text that follows a prompt."""
        ...

    def sampler(self, sampling: StudentSampling, prompt: Sequence[int], guidance: Sequence[int]) -> Sampler: ...


class LlamaSequence:
    """A sequence of the engine, and the text of its guidance.

    `extend` feeds the engine those tokens of the guidance that no longer change. At the handover, `generate` tokenises all of
    it once more, and replaces what the engine has from the first token that differs.
    """

    def __init__(
        self, student: GuidanceTokenizer, engine: Engine, state: EngineSequence, prompt_tokens: int, text: str
    ) -> None:
        self._student = student
        self._engine = engine
        self._prompt_tokens = prompt_tokens
        self._state = state
        self._guidance = text
        self._stable = 0
        self._started = False
        self._fed: list[int] = state.tokens[prompt_tokens:]
        engine.submit(state)

    @property
    def cached_tokens(self) -> int:
        return min(self._state.cached or 0, self._prompt_tokens)

    @property
    def scores(self) -> Sequence[Score]:
        return self._state.scores

    def extend(self, text: str) -> None:
        self._guidance += text
        if self._state.deferred and not self._started:
            self._started = True
            # What was prefilled ahead stays.
            self._engine.rewrite(self._state, self._prompt_tokens + len(self._fed), [])
        stable = stable_length(self._guidance)
        if stable == self._stable:
            return
        self._stable = stable
        # Several tokens at once cost less than one by one, and the teacher may share the cores.
        self._feed(self._student.continuation(self._guidance[:stable]), at_least=FEED_TOKENS)

    def prefill_ahead(self, text: str) -> None:
        self._feed(self._student.continuation(self._guidance + text), at_least=1)

    async def generate(self, sampling: StudentSampling) -> AsyncGenerator[TokenOutput, None]:
        ids = self._student.continuation(self._guidance)
        full = self._prompt_tokens + len(ids) >= self._student.context_tokens
        scores_only = sampling.max_tokens < 1 and self._state.scored_from is not None and not full
        if full or (sampling.max_tokens < 1 and not scores_only):
            self.close()
            yield TokenOutput(text="", end="length")
            return
        if scores_only:
            # The scores are complete with the first token, which comes from the same batch and is dropped.
            sampling = sampling.model_copy(update={"max_tokens": 1})
        same = self._fed_prefix(ids)
        sampler = self._student.sampler(sampling, self._state.tokens[: self._prompt_tokens], ids)
        self._engine.generate(self._state, self._prompt_tokens + same, ids[same:], sampler)
        try:
            while True:
                token = await self._state.outcomes.get()
                if isinstance(token, Exception):
                    raise token
                if scores_only:
                    token = TokenOutput(text="", end="length")
                yield token
                if token.end:
                    return
        finally:
            self.close()

    def close(self) -> None:
        self._engine.remove(self._state)

    def _feed(self, ids: list[int], *, at_least: int) -> None:
        """Pass the guidance `ids` to the engine, unless fewer than `at_least` of them are new or the context is full."""
        same = self._fed_prefix(ids)
        if len(ids) - same >= at_least and self._prompt_tokens + len(ids) < self._student.context_tokens:
            self._engine.rewrite(self._state, self._prompt_tokens + same, ids[same:])
            self._fed = ids

    def _fed_prefix(self, ids: list[int]) -> int:
        """Return how many of `ids` the engine has. Usually those are all it has, but tokens may change as the text grows."""
        pairs = enumerate(zip(self._fed, ids, strict=False))
        return next((at for at, (fed, new) in pairs if fed != new), min(len(self._fed), len(ids)))


def stable_length(text: str) -> int:
    """Return the length of the prefix of a growing text whose tokens no longer change: up to the last space after a word.

    The pre-tokenizers of byte-level BPE (GPT-2's pattern and its descendants) always end a piece before a space that follows a
    visible character, whatever comes behind it. Text without such a place is passed to the engine at the handover.
    """
    at = text.rfind(" ")
    while at > 0 and text[at - 1].isspace():
        at = text.rfind(" ", 0, at)
    return max(at, 0)
