"""Slots and cells of the KV cache, and the prefixes that finished sequences leave in them for others to reuse."""

from __future__ import annotations

from dataclasses import dataclass

from edge_student.llama.batch import CopyPrefix, SequenceState, Truncate
from edge_student.llama.kv_cells import KvCells

MIN_PREFIX_TOKENS = 16
"""Shortest prefix that is cached or copied. Shorter ones are computed again."""


@dataclass(eq=False)
class CachedPrefix:
    """The tokens that a finished sequence left in its slot."""

    tokens: list[int]
    cache_salt: str | None
    slot: int


class PrefixCache:
    """Gives slots to sequences and keeps up to `max_prefixes` prefixes, until their slots or cells are needed.

    The operations that the engine has to run on its own cache are collected, in order, until `take_ops`.
    """

    def __init__(self, *, n_slots: int, n_cells: int, max_prefixes: int) -> None:
        self.n_cells = n_cells
        self.max_prefixes = max_prefixes
        self.prefixes: list[CachedPrefix] = []
        """Cached prefixes, least recently used first."""
        self._cells = KvCells(n_slots)
        self.free_slots = list(range(n_slots - 1, -1, -1))
        self._ops: list[Truncate | CopyPrefix] = []

    @property
    def cells_used(self) -> int:
        return self._cells.used

    @property
    def free_cells(self) -> int:
        return self.n_cells - self._cells.used

    def take_ops(self) -> list[Truncate | CopyPrefix]:
        """Return the operations since the last call."""
        ops, self._ops = self._ops, []
        return ops

    def allocate(self, source: SequenceState | CachedPrefix | None, common: int, wanted: int) -> int | None:
        """Return a slot that starts with the first `common` tokens of `source`, or None if there is no room.

        It takes over the slot of a cached prefix, or copies from it. Other prefixes are evicted until `wanted` cells are free,
        all that the sequence needs: otherwise it might be evicted again half-way.
        """
        cached = source if isinstance(source, CachedPrefix) else None
        if cached:
            self._mark_used(cached)
        # If a copy would save few tokens it is not worth a slot, such as the rejected end of an answer that is read by drafts.
        in_place = cached is not None and len(cached.tokens) - common < MIN_PREFIX_TOKENS
        others = [prefix for prefix in self.prefixes if prefix is not source]
        while others and (self.free_cells < wanted or not (in_place or self.free_slots)):
            self._evict(others.pop(0))
        can_copy = self.free_cells >= wanted and bool(self.free_slots)
        if cached and (in_place or not can_copy):
            spare = self._cells.length(cached.slot) - common
            if self.free_cells + spare < wanted:
                return None
            self.prefixes.remove(cached)
            self.truncate(cached.slot, common)
            return cached.slot
        if not can_copy:
            return None
        slot = self.free_slots.pop()
        if source is not None:
            assert source.slot is not None  # noqa: S101 - it runs or is cached
            self._cells.copy_prefix(source.slot, slot, common)
            self._ops.append(CopyPrefix(source.slot, slot, common))
        return slot

    def grow(self, slot: int, count: int) -> None:
        """Add computed tokens to a slot."""
        self._cells.grow(slot, count)

    def truncate(self, slot: int, start: int) -> None:
        """Remove a slot's tokens from position `start` on."""
        if self._cells.length(slot) > start:
            self._cells.truncate(slot, start)
            self._ops.append(Truncate(slot, start))

    def free(self, slot: int) -> None:
        """Empty a slot and give it back."""
        self.truncate(slot, 0)
        self.free_slots.append(slot)

    def store(self, tokens: list[int], cache_salt: str | None, slot: int) -> None:
        """Cache the tokens in a slot as a prefix, unless they are too few or cached already; then the slot is freed."""
        new = CachedPrefix(tokens, cache_salt, slot)
        known = any(common_length(prefix, new) == len(tokens) for prefix in self.prefixes)
        if known or not self.max_prefixes or len(tokens) < MIN_PREFIX_TOKENS:
            self.free(slot)
            return
        for prefix in [old for old in self.prefixes if common_length(old, new) == len(old.tokens)]:
            self._evict(prefix)
        self.prefixes.append(new)
        if len(self.prefixes) > self.max_prefixes:
            self.evict_oldest()

    def evict_oldest(self) -> bool:
        """Evict the least recently used prefix. Returns whether there was one."""
        if self.prefixes:
            self._evict(self.prefixes[0])
            return True
        return False

    def make_room(self, wanted: int) -> int:
        """Evict prefixes until `wanted` cells are free, if there are enough. Returns the number of free cells."""
        while self.free_cells < wanted and self.evict_oldest():
            pass
        return self.free_cells

    def _mark_used(self, prefix: CachedPrefix) -> None:
        self.prefixes.remove(prefix)
        self.prefixes.append(prefix)

    def _evict(self, prefix: CachedPrefix) -> None:
        self.prefixes.remove(prefix)
        self.free(prefix.slot)


def common_length(one: SequenceState | CachedPrefix, other: SequenceState | CachedPrefix) -> int:
    """Return the length of the prefix that two have in common and may share."""
    return common_prefix(one.tokens, other.tokens) if one.cache_salt == other.cache_salt else 0


def common_prefix(one: list[int], other: list[int]) -> int:
    """Return the length of the common prefix of two lists. Slices are compared natively, so bisection beats a loop."""
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
