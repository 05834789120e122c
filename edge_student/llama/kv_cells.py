"""Counts the cells of the KV cache that are in use, when slots share some of them. Pure bookkeeping, without a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class CellRange:
    """Consecutive cells that the same slots hold."""

    length: int
    owners: int


class KvCells:
    """The cells of each slot, as in llama.cpp's unified cache: a slot that shares the prefix of another uses no more of them.

    Positions of a slot are contiguous from 0. `used` counts each cell once.
    """

    def __init__(self, n_slots: int) -> None:
        self._slots: list[list[CellRange]] = [[] for _ in range(n_slots)]
        self.used = 0

    def length(self, slot: int) -> int:
        """Return the number of tokens that a slot holds."""
        return sum(cells.length for cells in self._slots[slot])

    def grow(self, slot: int, count: int) -> None:
        """Add computed tokens to a slot."""
        ranges = self._slots[slot]
        if ranges and ranges[-1].owners == 1:
            ranges[-1].length += count
        else:
            ranges.append(CellRange(count, owners=1))
        self.used += count

    def truncate(self, slot: int, length: int = 0) -> None:
        """Remove a slot's tokens from `length` on (`llama_memory_seq_rm`)."""
        self._split(slot, length)
        ranges = self._slots[slot]
        kept = 0
        while kept < len(ranges) and length > 0:
            length -= ranges[kept].length
            kept += 1
        for cells in ranges[kept:]:
            cells.owners -= 1
            if not cells.owners:
                self.used -= cells.length
        del ranges[kept:]

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let an empty slot hold the first `length` tokens of another (`llama_memory_seq_cp`)."""
        self._split(source, length)
        ranges = self._slots[target]
        for cells in self._slots[source]:
            if length <= 0:
                return
            cells.owners += 1
            ranges.append(cells)
            length -= cells.length

    def _split(self, slot: int, at: int) -> None:
        """Make a range end at a position of a slot, in every slot that holds it."""
        for cells in self._slots[slot]:
            if 0 < at < cells.length:
                tail = CellRange(cells.length - at, cells.owners)
                cells.length = at
                for ranges in self._slots:
                    if cells in ranges:
                        ranges.insert(ranges.index(cells) + 1, tail)
                return
            at -= cells.length
            if at <= 0:
                return
