"""What the scheduler decides over, and what it decides: sequences, and the plan of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

_arrivals = count()


@dataclass(eq=False)
class SequenceState:
    """A sequence as the engine's thread keeps it."""

    tokens: list[int]
    generating: bool = False
    """False while guidance may still come: then the last token stays out, since its logits are needed at the hand-over."""
    cache_salt: str | None = None
    """Only those of the same share their beginnings."""
    deferred: bool = False
    """Nothing of it is computed yet."""
    scored_from: int | None = None
    """From this position on the score of each token is wanted, so the logits in front of it are."""
    n_past: int = 0
    slot: int | None = None
    cached: int | None = None
    """Tokens that were there already when it began; None until then."""
    arrival: int = field(default_factory=lambda: next(_arrivals))

    @property
    def waiting(self) -> int:
        """Tokens that may be computed now."""
        return 0 if self.deferred else len(self.tokens) - self.n_past - (0 if self.generating else 1)

    @property
    def decoding(self) -> bool:
        return self.generating and self.slot is not None and len(self.tokens) - self.n_past == 1

    @property
    def reusable(self) -> int:
        """How much of it may come from elsewhere: the logits of its last token are its own, and so are those of scores."""
        most = len(self.tokens) - 1
        return most if self.scored_from is None else max(0, min(most, self.scored_from - 1))

    def logits_wanted(self, start: int, end: int) -> int:
        """How many of its tokens before position `end` and not before `start` need logits; they are the last ones."""
        wanted = 1 if self.generating and end == len(self.tokens) else 0
        if self.scored_from is not None:
            # Behind the end of the tokens there is nothing to score yet, but the logits would be gone by then.
            wanted = max(wanted, end - max(start, self.scored_from - 1))
        return wanted


@dataclass(frozen=True)
class Chunk:
    """`count` tokens of a sequence from position `start`; logits of the last `logits` of them are wanted."""

    sequence: SequenceState
    start: int
    count: int
    logits: int


@dataclass(frozen=True)
class Cut:
    """A slot forgets its tokens from position `start` on."""

    slot: int
    start: int = 0


@dataclass(frozen=True)
class Copy:
    """An empty slot gets the first `length` tokens of another one's cells."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class Plan:
    chunks: list[Chunk]
    moves: list[Cut | Copy]
    """What happens to the cache before the batch is computed, in order."""
    evicted: list[SequenceState]
    """Sequences that have to give their cells back, and compute them again later."""
    begun: list[SequenceState]
    """Sequences that got a slot; their `n_past` tokens were there already."""

    @property
    def tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)
