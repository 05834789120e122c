"""How many cells of the KV cache are in use, where slots may hold the same ones: pure bookkeeping, no model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class _Run:
    """Cells in a row that the same slots hold."""

    length: int
    owners: int


class Cells:
    """The cells of each slot, as llama.cpp's unified cache keeps them: who shares another's beginning takes no more of it.

    Positions of a slot are contiguous from 0. `used` counts each cell once.
    """

    def __init__(self, n_slots: int) -> None:
        self._slots: list[list[_Run]] = [[] for _ in range(n_slots)]
        self.used = 0

    def length(self, slot: int) -> int:
        """Tokens that a slot holds."""
        return sum(run.length for run in self._slots[slot])

    def grow(self, slot: int, count: int) -> None:
        """More tokens of a slot were computed."""
        runs = self._slots[slot]
        if runs and runs[-1].owners == 1:
            runs[-1].length += count
        else:
            runs.append(_Run(count, owners=1))
        self.used += count

    def cut(self, slot: int, length: int = 0) -> None:
        """A slot forgets its tokens from `length` on (`llama_memory_seq_rm`)."""
        self._split(slot, length)
        runs = self._slots[slot]
        kept = 0
        while kept < len(runs) and length > 0:
            length -= runs[kept].length
            kept += 1
        for run in runs[kept:]:
            run.owners -= 1
            if not run.owners:
                self.used -= run.length
        del runs[kept:]

    def share(self, source: int, target: int, length: int) -> None:
        """An empty slot gets the first `length` tokens of another (`llama_memory_seq_cp`)."""
        self._split(source, length)
        runs = self._slots[target]
        for run in self._slots[source]:
            if length <= 0:
                return
            run.owners += 1
            runs.append(run)
            length -= run.length

    def _split(self, slot: int, at: int) -> None:
        """Have a run end at a position of a slot, in every slot that holds it."""
        for run in self._slots[slot]:
            if 0 < at < run.length:
                tail = _Run(run.length - at, run.owners)
                run.length = at
                for runs in self._slots:
                    if run in runs:
                        runs.insert(runs.index(run) + 1, tail)
                return
            at -= run.length
            if at <= 0:
                return
