"""The scheduler against a model of the cache: no token is lost or doubled, nobody starves, every cell comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_student.llama.scheduler import Plan, Scheduler, SequenceState


def make(n_slots: int = 4, n_cells: int = 64, n_batch: int = 16, chunk: int = 8) -> Scheduler:
    return Scheduler(n_slots=n_slots, n_cells=n_cells, n_batch=n_batch, chunk=chunk)


def test_guidance_may_still_come_so_the_last_token_waits() -> None:
    scheduler = make()
    sequence = SequenceState(tokens=[1, 2, 3])
    scheduler.add(sequence)
    plan = scheduler.plan()
    assert [(c.start, c.count, c.logits) for c in plan.chunks] == [(0, 2, False)]
    scheduler.advance(plan)
    assert not scheduler.plan().chunks
    sequence.generating = True
    assert [(c.start, c.count, c.logits) for c in scheduler.plan().chunks] == [(2, 1, True)]


def test_a_long_prompt_does_not_crowd_out_those_who_decode() -> None:
    scheduler = make()
    decoding = SequenceState(tokens=[1, 2], generating=True, n_past=1, slot=3)
    scheduler._free_slots.remove(3)
    scheduler.add(decoding)
    scheduler.add(SequenceState(tokens=list(range(40)), generating=True))
    plan = scheduler.plan()
    assert [(c.sequence is decoding, c.count) for c in plan.chunks] == [(True, 1), (False, 8)]


def test_a_sequence_that_does_not_fit_waits_for_its_turn() -> None:
    scheduler = make(n_cells=20)
    first, second, third = (SequenceState(tokens=[0] * n, generating=True) for n in (12, 12, 2))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    scheduler.advance(scheduler.plan())
    assert (second.slot, third.slot) == (None, None), "first come, first served"
    scheduler.remove(first)
    assert {c.sequence for c in scheduler.plan().chunks} == {second, third}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_everyone_gets_exactly_their_tokens(data: st.DataObject) -> None:
    n_cells = data.draw(st.integers(24, 60), "cells")
    scheduler = make(n_slots=data.draw(st.integers(1, 4), "slots"), n_cells=n_cells)
    cache: dict[int, list[int]] = {}
    wanted: dict[SequenceState, int] = {}
    written: dict[SequenceState, int] = {}

    def apply(plan: Plan) -> None:
        for _, freed in plan.evicted:
            cache.pop(freed, None)
        assert plan.tokens <= scheduler.n_batch
        slots = [c.sequence.slot for c in plan.chunks]
        assert len(set(slots)) == len(slots)
        for chunk in plan.chunks:
            slot = chunk.sequence.slot
            assert slot is not None
            cells = cache.setdefault(slot, [])
            assert len(cells) == chunk.start, "positions are contiguous"
            cells += chunk.sequence.tokens[chunk.start : chunk.start + chunk.count]
        assert sum(map(len, cache.values())) <= n_cells
        scheduler.advance(plan)
        for chunk in plan.chunks:
            sequence = chunk.sequence
            slot = sequence.slot
            assert slot is not None
            if chunk.logits:
                assert cache[slot] == sequence.tokens, "the logits are those of the whole sequence"
                written[sequence] += 1
                sequence.tokens.append(1000 + written[sequence])
                if written[sequence] == wanted[sequence]:
                    leave(sequence)

    def leave(sequence: SequenceState) -> None:
        freed = scheduler.remove(sequence)
        if freed is not None:
            cache.pop(freed, None)

    live: list[SequenceState] = []
    for _ in range(data.draw(st.integers(1, 30), "events")):
        live = [s for s in live if s in scheduler._sequences]
        match data.draw(st.sampled_from(["add", "extend", "hand over", "cancel", "step", "step"])):
            case "add":
                sequence = SequenceState(tokens=list(range(data.draw(st.integers(1, 12)))))
                wanted[sequence], written[sequence] = data.draw(st.integers(1, 8)), 0
                scheduler.add(sequence)
                live.append(sequence)
            case "extend" if waiting := [s for s in live if not s.generating and len(s.tokens) < 14]:
                data.draw(st.sampled_from(waiting)).tokens.extend([7, 8])
            case "hand over" if waiting := [s for s in live if not s.generating]:
                data.draw(st.sampled_from(waiting)).generating = True
            case "cancel" if live:
                leave(data.draw(st.sampled_from(live)))
            case _:
                apply(scheduler.plan())
    for sequence in live:
        sequence.generating = True
    for _ in range(600):
        if not len(scheduler):
            break
        apply(scheduler.plan())
    assert not len(scheduler), "nobody starves"
    assert not cache
    assert sorted(scheduler._free_slots) == list(range(scheduler.n_slots))


def test_a_full_cache_throws_out_the_youngest() -> None:
    scheduler = make(n_cells=10)
    old, young = (SequenceState(tokens=[0] * 4, generating=True) for _ in range(2))
    for sequence in (old, young):
        scheduler.add(sequence)
    scheduler.advance(scheduler.plan())
    for sequence in (old, young):
        sequence.tokens.append(1)
    scheduler.advance(scheduler.plan())
    for sequence in (old, young):
        sequence.tokens.append(2)
    plan = scheduler.plan()
    assert [s for s, _ in plan.evicted] == [young]
    assert [c.sequence for c in plan.chunks] == [old]


@pytest.mark.parametrize("generating", [True, False])
def test_removing_twice_is_no_harm(generating: bool) -> None:
    scheduler = make()
    sequence = SequenceState(tokens=[1], generating=generating)
    scheduler.add(sequence)
    scheduler.plan()
    scheduler.remove(sequence)
    assert scheduler.remove(sequence) is None
