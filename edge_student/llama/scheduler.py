"""What goes into the next batch: pure decisions over sequences, without a model.

A sequence is a list of tokens of which the first `n_past` are in the KV cache. Everything behind them waits: the prompt
and guidance in chunks, a freshly sampled token alone. Preemption is then no more than `n_past = 0`.
"""

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
    held: bool = False
    """Nothing of it is computed yet."""
    n_past: int = 0
    slot: int | None = None
    arrival: int = field(default_factory=lambda: next(_arrivals))

    @property
    def waiting(self) -> int:
        """Tokens that may be computed now."""
        return 0 if self.held else len(self.tokens) - self.n_past - (0 if self.generating else 1)

    @property
    def decoding(self) -> bool:
        return self.generating and self.slot is not None and len(self.tokens) - self.n_past == 1


@dataclass(frozen=True)
class Chunk:
    """`count` tokens of a sequence from position `start`; `logits` of the last of them are wanted or not."""

    sequence: SequenceState
    start: int
    count: int
    logits: bool


@dataclass(frozen=True)
class Plan:
    chunks: list[Chunk]
    evicted: list[tuple[SequenceState, int]]
    """Sequences that have to give their cells back first, with the slot each held."""

    @property
    def tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)


class Scheduler:
    """First come, first served over `n_slots` sequences at once and `n_cells` tokens of KV cache.

    A batch holds one token of every decoding sequence, then waiting tokens in order of arrival: up to `n_batch` of them, or
    `chunk` where some sequence is decoding, so that a long prompt does not stall the others.
    """

    def __init__(self, *, n_slots: int, n_cells: int, n_batch: int, chunk: int) -> None:
        self.n_slots = n_slots
        self.n_cells = n_cells
        self.n_batch = n_batch
        self.chunk = chunk
        self._sequences: list[SequenceState] = []
        self._free_slots = list(range(n_slots - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def cells_used(self) -> int:
        return sum(sequence.n_past for sequence in self._sequences)

    @property
    def running(self) -> list[SequenceState]:
        return [sequence for sequence in self._sequences if sequence.slot is not None]

    def add(self, sequence: SequenceState) -> None:
        self._sequences.append(sequence)

    def remove(self, sequence: SequenceState) -> int | None:
        """Forget a sequence. Returns the slot whose cells are to be cleared, if it had one."""
        if sequence not in self._sequences:
            return None
        self._sequences.remove(sequence)
        return self._release(sequence)

    def plan(self) -> Plan:
        """The next batch. Slots are given out here; `n_past` moves only with `advance`, after the batch was computed."""
        evicted = self._make_room()
        chunks = [Chunk(s, s.n_past, 1, logits=True) for s in self._sequences if s.decoding]
        free_cells = self.n_cells - self.cells_used - len(chunks)
        room = (min(self.n_batch, len(chunks) + self.chunk) if chunks else self.n_batch) - len(chunks)
        for sequence in self._sequences:
            if room <= 0:
                break
            if sequence.decoding or sequence.waiting <= 0 or any(sequence is gone for gone, _ in evicted):
                continue
            if sequence.slot is None:
                # Begun only where all of it fits, so that it is not thrown out again half-way.
                if not self._free_slots or len(sequence.tokens) > free_cells:
                    break
                sequence.slot = self._free_slots.pop()
            size = min(sequence.waiting, room, free_cells)
            if size <= 0:
                continue
            ends = sequence.generating and sequence.n_past + size == len(sequence.tokens)
            chunks.append(Chunk(sequence, sequence.n_past, size, logits=ends))
            room -= size
            free_cells -= size
        return Plan(chunks, evicted)

    def advance(self, plan: Plan) -> None:
        """The batch was computed: its tokens are in the cache."""
        for chunk in plan.chunks:
            chunk.sequence.n_past = chunk.start + chunk.count

    def _make_room(self) -> list[tuple[SequenceState, int]]:
        """Throw out the youngest until every sequence that stays can take a step; they compute again when there is room."""
        evicted: list[tuple[SequenceState, int]] = []
        while True:
            stepping = [s for s in self._sequences if s.slot is not None and s.waiting > 0]
            if self.cells_used + len(stepping) <= self.n_cells or len(self.running) <= 1:
                return evicted
            youngest = max(self.running, key=lambda s: s.arrival)
            slot = self._release(youngest)
            assert slot is not None  # noqa: S101 - it was running
            evicted.append((youngest, slot))

    def _release(self, sequence: SequenceState) -> int | None:
        slot, sequence.slot, sequence.n_past = sequence.slot, None, 0
        if slot is not None:
            self._free_slots.append(slot)
        return slot
