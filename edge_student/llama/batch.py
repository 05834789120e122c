"""The scheduler's input and output: sequences, and the batch of one step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

_arrivals = count()


@dataclass(eq=False)
class SequenceState:
    """A sequence in the engine's thread."""

    tokens: list[int]
    generating: bool = False
    """False while guidance may still come. The last token is not computed then, because its logits are needed at the handover."""
    cache_salt: str | None = None
    """Sequences share prefixes only if they have the same salt."""
    deferred: bool = False
    """True while the prefill has not been started."""
    scored_from: int | None = None
    """First position whose token is scored, which needs the logits in front of it."""
    n_past: int = 0
    """Tokens in the KV cache."""
    slot: int | None = None
    cached: int | None = None
    """Tokens that were in the cache when the sequence first got a slot; None until then."""
    arrival: int = field(default_factory=lambda: next(_arrivals))

    @property
    def waiting(self) -> int:
        """Tokens that can be computed now."""
        return 0 if self.deferred else len(self.tokens) - self.n_past - (0 if self.generating else 1)

    @property
    def decoding(self) -> bool:
        return self.generating and self.slot is not None and len(self.tokens) - self.n_past == 1

    @property
    def reusable(self) -> int:
        """Tokens that may be taken from the cache. The last token and scored ones need logits, so they are computed."""
        most = len(self.tokens) - 1
        return most if self.scored_from is None else max(0, min(most, self.scored_from - 1))

    def logits_wanted(self, start: int, end: int) -> int:
        """Return how many of the tokens from position `start` to before `end` need logits; they are the last ones."""
        wanted = 1 if self.generating and end == len(self.tokens) else 0
        if self.scored_from is not None:
            # Nothing follows the last token yet, but when something does, these logits would be gone.
            wanted = max(wanted, end - max(start, self.scored_from - 1))
        return wanted


@dataclass(frozen=True)
class Chunk:
    """`count` tokens of a sequence from position `start`. The last `logits` of them need logits."""

    sequence: SequenceState
    start: int
    count: int
    logits: int


@dataclass(frozen=True)
class Truncate:
    """Cache operation: remove a slot's tokens from position `start` on."""

    slot: int
    start: int = 0


@dataclass(frozen=True)
class CopyPrefix:
    """Cache operation: an empty slot gets the first `length` tokens of another."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class Batch:
    """The work of one step."""

    chunks: list[Chunk]
    cache_ops: list[Truncate | CopyPrefix]
    """Operations on the cache that precede the computation, in order."""
    evicted: list[SequenceState]
    """Sequences that lost their cells and have to compute them again later."""
    started: list[SequenceState]
    """Sequences that got a slot. Their `n_past` tokens were in the cache."""

    @property
    def tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)
