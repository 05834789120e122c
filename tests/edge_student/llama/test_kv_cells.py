"""The ledger of cells against the plainest model: a slot is a list of cell names, a cell is used while any slot has it."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from edge_student.llama.kv_cells import KvCells

N_SLOTS = 4


@given(st.data())
def test_cells_are_counted_once_however_many_slots_hold_them(data: st.DataObject) -> None:
    cells = KvCells(N_SLOTS)
    slots: list[list[int]] = [[] for _ in range(N_SLOTS)]
    names = count()
    for _ in range(data.draw(st.integers(0, 40), "events")):
        slot = data.draw(st.integers(0, N_SLOTS - 1), "slot")
        match data.draw(st.sampled_from(["grow", "truncate", "copy"]), "event"):
            case "grow":
                size = data.draw(st.integers(1, 5), "size")
                cells.grow(slot, size)
                slots[slot] += [next(names) for _ in range(size)]
            case "truncate":
                at = data.draw(st.integers(0, len(slots[slot]) + 1), "at")
                cells.truncate(slot, at)
                del slots[slot][at:]
            case _ if empty := [s for s in range(N_SLOTS) if not slots[s] and s != slot]:
                target = data.draw(st.sampled_from(empty), "target")
                length = data.draw(st.integers(0, len(slots[slot])), "length")
                cells.copy_prefix(slot, target, length)
                slots[target] = slots[slot][:length]
        assert [cells.length(s) for s in range(N_SLOTS)] == list(map(len, slots))
        assert cells.used == len(set().union(*slots))
