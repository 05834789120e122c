"""Decides what goes into the next batch. Pure decisions over sequences, without a model.

A sequence is a list of tokens of which the first `n_past` are in the KV cache. The tokens behind them wait: prompt and guidance
in chunks, a freshly sampled token alone. Preemption therefore only sets `n_past` to 0. The tokens of a sequence that leaves stay
in the cache while there is room, and a sequence that starts with the same ones takes them over.
"""

from __future__ import annotations

from edge_student.llama.batch import Batch, Chunk, SequenceState
from edge_student.llama.prefix_cache import MIN_PREFIX_TOKENS, CachedPrefix, PrefixCache, common_length

MIN_WAIT_TOKENS = 32
"""A sequence waits for another one that is about to compute at least this many tokens of its prefix."""
SCORED_CHUNK = 32
"""Most tokens of a scored sequence in one batch: each of them has a row of logits as long as the vocabulary."""


class Scheduler:
    """First come, first served, over `n_running` sequences at once and `n_cells` tokens of KV cache.

    A batch holds one token of every decoding sequence, then waiting tokens in order of arrival: up to `n_batch` of them, or
    `chunk` while some sequence decodes, so that a long prompt does not stall the others. If more sequences wait than decode, the
    chunk is as many times longer, because fewer lose by it than gain.

    Up to `n_cached` prefixes of finished sequences stay in the cache, fewer if many sequences run: these contain the common
    prefixes too, and every cell in use costs each step a little.
    """

    def __init__(self, *, n_running: int, n_cells: int, n_batch: int, chunk: int, n_cached: int = 0) -> None:
        self.n_running = n_running
        self.n_batch = n_batch
        self.chunk = chunk
        self.n_slots = max(n_running, n_cached)
        self.cache = PrefixCache(n_slots=self.n_slots, n_cells=n_cells, max_prefixes=n_cached)
        self._sequences: list[SequenceState] = []

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def running(self) -> list[SequenceState]:
        return [sequence for sequence in self._sequences if sequence.slot is not None]

    def add(self, sequence: SequenceState) -> None:
        self._sequences.append(sequence)

    def remove(self, sequence: SequenceState, *, keep: bool = True) -> None:
        """Remove a sequence. With `keep` its tokens stay in the cache as a prefix while there is room."""
        if sequence not in self._sequences:
            return
        self._sequences.remove(sequence)
        slot, tokens = sequence.slot, sequence.tokens[: sequence.n_past]
        sequence.slot, sequence.n_past = None, 0
        if slot is None:
            return
        if keep:
            self.cache.store(tokens, sequence.cache_salt, slot)
        else:
            self.cache.free(slot)

    def truncate(self, sequence: SequenceState, length: int) -> None:
        """Drop what was computed of a sequence from position `length` on, because its tokens have changed there."""
        if sequence.n_past > length:
            sequence.n_past = length
            if sequence.slot is not None:
                self.cache.truncate(sequence.slot, length)

    def evict(self, sequence: SequenceState) -> None:
        """Take the cells of a running sequence. It computes them again when there is room."""
        slot, sequence.slot, sequence.n_past = sequence.slot, None, 0
        if slot is not None:
            self.cache.free(slot)

    def next_batch(self) -> Batch:
        """Return the next batch. Slots are assigned here; `n_past` changes in `advance`, after the batch was computed."""
        evicted = self._evict_until_all_can_step()
        started: list[SequenceState] = []
        chunks = [Chunk(s, s.n_past, 1, logits=1) for s in self._sequences if s.decoding]
        taken = len(chunks)
        blocked = False
        room = min(self.n_batch - taken, self._chunk_beside(taken)) if chunks else self.n_batch
        for sequence in self._sequences:
            if room <= 0:
                break
            if sequence.decoding or sequence.waiting <= 0 or sequence in evicted:
                continue
            if sequence.slot is None:
                # No sequence overtakes one that cannot start. Those that run continue.
                if blocked or len(self.running) >= self.n_running:
                    blocked = True
                    continue
                source, common = self._longest_prefix_match(sequence)
                if self._should_wait_for_prefix(sequence, common):
                    continue
                if not self._start(sequence, source, common, taken):
                    blocked = True
                    continue
                started.append(sequence)
            size = min(sequence.waiting, room)
            size = min(size, self.cache.make_room(taken + size) - taken)
            if sequence.scored_from is not None:
                size = min(size, SCORED_CHUNK)
            if size <= 0:
                continue
            logits = sequence.logits_wanted(sequence.n_past, sequence.n_past + size)
            chunks.append(Chunk(sequence, sequence.n_past, size, logits))
            room -= size
            taken += size
        return Batch(chunks, self.cache.take_ops(), evicted, started)

    def advance(self, batch: Batch) -> None:
        """Record that the batch was computed: its tokens are in the cache."""
        for chunk in batch.chunks:
            sequence = chunk.sequence
            assert sequence.slot is not None  # noqa: S101 - a scheduled sequence has one
            sequence.n_past = chunk.start + chunk.count
            self.cache.grow(sequence.slot, chunk.count)

    def _chunk_beside(self, decoding: int) -> int:
        """Return how many waiting tokens fit into a step beside `decoding` sequences that decode."""
        waiting = sum(1 for s in self._sequences if s.waiting > 0 and not s.decoding)
        return max(self.chunk, self.chunk * waiting // decoding)

    def _evict_until_all_can_step(self) -> list[SequenceState]:
        """Evict the youngest sequences until every remaining one can take a step."""
        evicted: list[SequenceState] = []
        while True:
            stepping = sum(1 for s in self._sequences if s.slot is not None and s.waiting > 0)
            if self.cache.make_room(stepping) >= stepping or len(self.running) <= 1:
                return evicted
            youngest = max(self.running, key=lambda s: s.arrival)
            self.evict(youngest)
            evicted.append(youngest)

    def _longest_prefix_match(self, sequence: SequenceState) -> tuple[SequenceState | CachedPrefix | None, int]:
        """Return the sequence or cached prefix that has computed most of a sequence's prefix, and its length."""
        best: SequenceState | CachedPrefix | None = None
        longest = MIN_PREFIX_TOKENS - 1
        if not self.cache.max_prefixes:
            return None, 0
        candidates: list[SequenceState | CachedPrefix] = [*self.cache.prefixes, *self.running]
        for candidate in candidates:
            computed = candidate.n_past if isinstance(candidate, SequenceState) else len(candidate.tokens)
            usable = min(computed, sequence.reusable)
            if usable > longest and (common := min(common_length(candidate, sequence), usable)) > longest:
                best, longest = candidate, common
        return best, longest if best else 0

    def _should_wait_for_prefix(self, sequence: SequenceState, common: int) -> bool:
        """Return whether another sequence is about to compute much more of the same prefix."""
        enough = common + MIN_WAIT_TOKENS
        if not self.cache.max_prefixes or sequence.reusable < enough:
            return False
        return any(
            other.waiting > 0
            and other.n_past + other.waiting >= enough
            and min(common_length(other, sequence), sequence.reusable, other.n_past + other.waiting) >= enough
            for other in self.running
        )

    def _start(
        self, sequence: SequenceState, source: SequenceState | CachedPrefix | None, common: int, taken: int
    ) -> bool:
        """Give a sequence a slot, if all of it fits. Returns whether it has one."""
        slot = self.cache.allocate(source, common, taken + len(sequence.tokens) - common)
        if slot is None:
            return False
        sequence.slot, sequence.n_past = slot, common
        if sequence.cached is None:
            sequence.cached = common
        return True
