"""What goes into the next batch: pure decisions over sequences, without a model.

A sequence is a list of tokens of which the first `n_past` are in the KV cache. Everything behind them waits: the prompt
and guidance in chunks, a freshly sampled token alone. Preemption is then no more than `n_past = 0`. A sequence that leaves
is kept for as long as nobody needs its room: whoever comes with the same beginning takes that over.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_student.llama.batch import Chunk, Copy, Cut, Plan, SequenceState
from edge_student.llama.kv_cells import Cells

KEEP_TOKENS = 16
"""Shorter beginnings are computed again sooner than they are kept or copied."""
WAIT_TOKENS = 32
"""A sequence waits for another that is just computing so many tokens of its own beginning, or more."""
SCORED_CHUNK = 32
"""Tokens of a sequence with scores in one batch, at most: each has a row of logits as long as the vocabulary."""


@dataclass(eq=False)
class _Kept:
    """What a sequence that has left leaves in the cache."""

    tokens: list[int]
    cache_salt: str | None
    slot: int


class Scheduler:
    """First come, first served over `n_running` sequences at once and `n_cells` tokens of KV cache.

    A batch holds one token of every decoding sequence, then waiting tokens in order of arrival: up to `n_batch` of them, or
    `chunk` where some sequence is decoding, so that a long prompt does not stall the others. Where more wait than decode the
    chunk is as many times as long: fewer lose by it than gain. Up to `n_kept` sequences that
    have left stay in the cache, the least recently used of which go first where room is needed. Where many run there are fewer:
    every cell in use costs each step a little, and those who run have the common beginnings too.
    """

    def __init__(self, *, n_running: int, n_cells: int, n_batch: int, chunk: int, n_kept: int = 0) -> None:
        self.n_running = n_running
        self.n_cells = n_cells
        self.n_batch = n_batch
        self.chunk = chunk
        self.n_kept = n_kept
        self.n_slots = max(n_running, n_kept)
        self._cells = Cells(self.n_slots)
        self._sequences: list[SequenceState] = []
        self._kept: list[_Kept] = []
        self._free_slots = list(range(self.n_slots - 1, -1, -1))
        self._moves: list[Cut | Copy] = []

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def cells_used(self) -> int:
        return self._cells.used

    @property
    def _free_cells(self) -> int:
        return self.n_cells - self._cells.used

    @property
    def running(self) -> list[SequenceState]:
        return [sequence for sequence in self._sequences if sequence.slot is not None]

    def add(self, sequence: SequenceState) -> None:
        self._sequences.append(sequence)

    def remove(self, sequence: SequenceState, *, keep: bool = True) -> None:
        """A sequence leaves. With `keep` its cells stay for whoever begins the same, as long as there is room."""
        if sequence not in self._sequences:
            return
        self._sequences.remove(sequence)
        slot, tokens = sequence.slot, sequence.tokens[: sequence.n_past]
        sequence.slot, sequence.n_past = None, 0
        if slot is None:
            return
        left = _Kept(tokens, sequence.cache_salt, slot)
        if keep and self.n_kept and len(tokens) >= KEEP_TOKENS and not self._is_kept(left):
            for one in [kept for kept in self._kept if _common(kept, left) == len(kept.tokens)]:
                self._drop(one)
            self._kept.append(left)
            if len(self._kept) > self.n_kept:
                self.drop_kept()
        else:
            self._free(slot)

    def cut(self, sequence: SequenceState, length: int) -> None:
        """A sequence's tokens have changed from position `length` on: what was computed of them is forgotten."""
        if sequence.n_past > length:
            sequence.n_past = length
            if sequence.slot is not None:
                self._cut(sequence.slot, length)

    def evict(self, sequence: SequenceState) -> None:
        """A running sequence gives its cells back; it computes them again when there is room."""
        slot, sequence.slot, sequence.n_past = sequence.slot, None, 0
        if slot is not None:
            self._free(slot)

    def plan(self) -> Plan:
        """The next batch. Slots are given out here; `n_past` moves only with `advance`, after the batch was computed."""
        evicted = self._make_room()
        begun: list[SequenceState] = []
        chunks = [Chunk(s, s.n_past, 1, logits=1) for s in self._sequences if s.decoding]
        taken = len(chunks)
        queued = False
        room = min(self.n_batch - taken, self._chunk(taken)) if chunks else self.n_batch
        for sequence in self._sequences:
            if room <= 0:
                break
            if sequence.decoding or sequence.waiting <= 0 or sequence in evicted:
                continue
            if sequence.slot is None:
                # First come, first served: behind one that cannot begin nobody does. But those who run go on.
                if queued or len(self.running) >= self.n_running:
                    queued = True
                    continue
                source, common = self._source(sequence)
                if self._worth_waiting(sequence, common):
                    continue
                if not self._begin(sequence, source, common, taken):
                    queued = True
                    continue
                begun.append(sequence)
            size = min(sequence.waiting, room)
            size = min(size, self._free_up(taken + size) - taken)
            if sequence.scored_from is not None:
                size = min(size, SCORED_CHUNK)
            if size <= 0:
                continue
            logits = sequence.logits_wanted(sequence.n_past, sequence.n_past + size)
            chunks.append(Chunk(sequence, sequence.n_past, size, logits))
            room -= size
            taken += size
        moves, self._moves = self._moves, []
        return Plan(chunks, moves, evicted, begun)

    def advance(self, plan: Plan) -> None:
        """The batch was computed: its tokens are in the cache."""
        for chunk in plan.chunks:
            sequence = chunk.sequence
            assert sequence.slot is not None  # noqa: S101 - a planned sequence has one
            sequence.n_past = chunk.start + chunk.count
            self._cells.grow(sequence.slot, chunk.count)

    def drop_kept(self) -> bool:
        """Give up what was used least recently of what is kept. Returns whether there was any."""
        if self._kept:
            self._drop(self._kept[0])
            return True
        return False

    def _chunk(self, decoding: int) -> int:
        """How many waiting tokens a step takes in beside so many sequences that decode."""
        waiting = sum(1 for s in self._sequences if s.waiting > 0 and not s.decoding)
        return max(self.chunk, self.chunk * waiting // decoding)

    def _make_room(self) -> list[SequenceState]:
        """Throw out the youngest until every sequence that stays can take a step."""
        evicted: list[SequenceState] = []
        while True:
            stepping = sum(1 for s in self._sequences if s.slot is not None and s.waiting > 0)
            if self._free_up(stepping) >= stepping or len(self.running) <= 1:
                return evicted
            youngest = max(self.running, key=lambda s: s.arrival)
            self.evict(youngest)
            evicted.append(youngest)

    def _source(self, sequence: SequenceState) -> tuple[SequenceState | _Kept | None, int]:
        """Who has computed most of a sequence's beginning, and how much of it."""
        best: SequenceState | _Kept | None = None
        most = KEEP_TOKENS - 1
        if not self.n_kept:
            return None, 0
        those: list[SequenceState | _Kept] = [*self._kept, *self.running]
        for one in those:
            there = one.n_past if isinstance(one, SequenceState) else len(one.tokens)
            if min(there, sequence.reusable) > most:
                common = min(_common(one, sequence), there, sequence.reusable)
                if common > most:
                    best, most = one, common
        return best, most if best else 0

    def _worth_waiting(self, sequence: SequenceState, common: int) -> bool:
        """Whether another one is about to compute much more of the same beginning."""
        if not self.n_kept or sequence.reusable < common + WAIT_TOKENS:
            return False
        return any(
            min(_common(one, sequence), sequence.reusable, one.n_past + one.waiting) >= common + WAIT_TOKENS
            for one in self.running
            if one.waiting > 0 and one.n_past + one.waiting >= common + WAIT_TOKENS
        )

    def _begin(self, sequence: SequenceState, source: SequenceState | _Kept | None, common: int, taken: int) -> bool:
        """Give a sequence a slot, if all of it fits, so that it is not thrown out again half-way."""
        if isinstance(source, _Kept):
            self._kept.remove(source)  # it is not dropped for room, and was used last now
            self._kept.append(source)
        wanted = taken + len(sequence.tokens) - common
        # What a copy would save is not worth a slot: of an answer that is read draft by draft, what did not stand.
        in_place = isinstance(source, _Kept) and len(source.tokens) - common < KEEP_TOKENS
        others = [kept for kept in self._kept if kept is not source]
        while others and (self._free_cells < wanted or not (in_place or self._free_slots)):
            self._drop(others.pop(0))
        fits = self._free_cells >= wanted
        if isinstance(source, _Kept) and (in_place or not fits or not self._free_slots):
            spare = self._cells.length(source.slot) - common
            if self._free_cells + spare < wanted:
                return False
            self._kept.remove(source)
            self._cut(source.slot, common)
            sequence.slot = source.slot
        elif fits and self._free_slots:
            sequence.slot = self._free_slots.pop()
            if source is not None:
                assert source.slot is not None  # noqa: S101 - it runs, or is kept
                self._cells.share(source.slot, sequence.slot, common)
                self._moves.append(Copy(source.slot, sequence.slot, common))
        else:
            return False
        sequence.n_past = common
        if sequence.cached is None:
            sequence.cached = common
        return True

    def _free_up(self, wanted: int) -> int:
        """Free cells, after what is kept has gone for as many as are wanted."""
        while self._free_cells < wanted and self.drop_kept():
            pass
        return self._free_cells

    def _is_kept(self, left: _Kept) -> bool:
        return any(_common(kept, left) == len(left.tokens) for kept in self._kept)

    def _drop(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        self._free(kept.slot)

    def _free(self, slot: int) -> None:
        self._cut(slot, 0)
        self._free_slots.append(slot)

    def _cut(self, slot: int, start: int) -> None:
        if self._cells.length(slot) > start:
            self._cells.cut(slot, start)
            self._moves.append(Cut(slot, start))


def _common(one: SequenceState | _Kept, other: SequenceState | _Kept) -> int:
    """Length of the beginning that two have in common and may share."""
    return common_prefix(one.tokens, other.tokens) if one.cache_salt == other.cache_salt else 0


def common_prefix(one: list[int], other: list[int]) -> int:
    """Length of the beginning that two lists share. Slices are compared natively, so halving beats a loop."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
