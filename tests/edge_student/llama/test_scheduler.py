"""The scheduler against a model of the cache: no token is lost or doubled, no sequence starves, every cell is freed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_student.llama.batch import Batch, CopyPrefix, SequenceState, Truncate
from edge_student.llama.scheduler import Scheduler


def make(n_running: int = 4, n_cells: int = 64, n_batch: int = 16, chunk: int = 8, n_cached: int = 0) -> Scheduler:
    return Scheduler(n_running=n_running, n_cells=n_cells, n_batch=n_batch, chunk=chunk, n_cached=n_cached)


def test_guidance_may_still_come_so_the_last_token_waits() -> None:
    scheduler = make()
    sequence = SequenceState(tokens=[1, 2, 3])
    scheduler.add(sequence)
    batch = scheduler.next_batch()
    assert [(c.start, c.count, c.logits) for c in batch.chunks] == [(0, 2, 0)]
    scheduler.advance(batch)
    assert not scheduler.next_batch().chunks
    sequence.generating = True
    assert [(c.start, c.count, c.logits) for c in scheduler.next_batch().chunks] == [(2, 1, 1)]


def test_a_long_prompt_does_not_crowd_out_those_who_decode() -> None:
    scheduler = make()
    decoding = SequenceState(tokens=[1, 2], generating=True)
    scheduler.add(decoding)
    scheduler.advance(scheduler.next_batch())
    decoding.tokens.append(3)
    scheduler.add(SequenceState(tokens=list(range(40)), generating=True))
    batch = scheduler.next_batch()
    assert [(c.sequence is decoding, c.count) for c in batch.chunks] == [(True, 1), (False, 8)]


def test_a_step_takes_in_more_where_more_wait_than_decode() -> None:
    scheduler = make(n_running=6, n_batch=40)
    for _ in range(2):
        scheduler.add(SequenceState(tokens=[1, 2], generating=True))
    scheduler.advance(scheduler.next_batch())
    for decoding in scheduler.running:
        decoding.tokens.append(3)
    for number in range(4):
        scheduler.add(SequenceState(tokens=[10 + number] * 6, generating=True))
    assert [c.count for c in scheduler.next_batch().chunks] == [1, 1, 6, 6, 4], (
        "two wait for each that decodes: twice 8 tokens"
    )


def test_who_runs_goes_on_though_an_earlier_one_waits_for_its_slot() -> None:
    scheduler = make(n_running=1)
    early = SequenceState(tokens=[0], deferred=True)
    late = SequenceState(tokens=list(range(18)))
    for sequence in (early, late):
        scheduler.add(sequence)
    scheduler.advance(scheduler.next_batch())
    early.deferred = False
    for sequence in (early, late):
        sequence.generating = True
    assert [(c.sequence is late, c.count) for c in scheduler.next_batch().chunks] == [(True, 2)]


def test_a_sequence_that_does_not_fit_waits_for_its_turn() -> None:
    scheduler = make(n_cells=20)
    first, second, third = (SequenceState(tokens=[0] * n, generating=True) for n in (12, 12, 2))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    scheduler.advance(scheduler.next_batch())
    assert (second.slot, third.slot) == (None, None), "first come, first served"
    scheduler.remove(first)
    assert {c.sequence for c in scheduler.next_batch().chunks} == {second, third}


class Cache:
    """Model of llama.cpp's unified cache as it is documented: cells with a token each, held by one slot or more."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.slots: list[list[list[int]]] = [[] for _ in range(scheduler.n_slots)]

    @property
    def used(self) -> int:
        return len({id(cell) for slot in self.slots for cell in slot})

    def compute(self, batch: Batch) -> None:
        for op in batch.cache_ops:
            if isinstance(op, CopyPrefix):
                assert not self.slots[op.target], "llama.cpp would mix the two"
                self.slots[op.target] = self.slots[op.source][: op.length]
                assert len(self.slots[op.target]) == op.length
            else:
                del self.slots[op.slot][op.start :]
        assert batch.tokens <= self.scheduler.n_batch
        slots = [chunk.sequence.slot for chunk in batch.chunks]
        assert len(set(slots)) == len(slots)
        for chunk in batch.chunks:
            tokens = chunk.sequence.tokens
            cells = self.slots[chunk.sequence.slot]  # type: ignore[index]
            assert [cell[0] for cell in cells] == tokens[: chunk.start], "what is there is its own beginning"
            cells += [[token] for token in tokens[chunk.start : chunk.start + chunk.count]]
        assert self.used <= self.scheduler.cache.n_cells
        self.scheduler.advance(batch)
        assert self.used == self.scheduler.cache.cells_used


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_everyone_gets_exactly_their_tokens(data: st.DataObject) -> None:
    n_cells = data.draw(st.integers(44, 90), "cells")
    scheduler = Scheduler(
        n_running=data.draw(st.integers(1, 4), "running"),
        n_cached=data.draw(st.integers(0, 3), "kept"),
        n_cells=n_cells,
        n_batch=16,
        chunk=8,
    )
    cache = Cache(scheduler)
    wanted: dict[SequenceState, int] = {}
    written: dict[SequenceState, int] = {}
    scored: dict[SequenceState, set[int]] = {}

    def step() -> None:
        batch = scheduler.next_batch()
        cache.compute(batch)
        for chunk in batch.chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.count
            if chunk.logits and sequence.scored_from is not None:
                scored[sequence].update(range(end - chunk.logits + 1, min(end + 1, len(sequence.tokens))))
            if chunk.logits and sequence.generating and sequence.n_past == len(sequence.tokens):
                written[sequence] += 1
                if written[sequence] == wanted[sequence]:
                    scheduler.remove(sequence)
                    if sequence.scored_from is not None:
                        given = [at for at, token in enumerate(sequence.tokens) if token < 1000]
                        assert scored[sequence] >= set(given[sequence.scored_from :])
                else:
                    sequence.tokens.append(1000 + written[sequence])

    live: list[SequenceState] = []
    for _ in range(data.draw(st.integers(1, 40), "events")):
        live = [s for s in live if s in scheduler._sequences]
        match data.draw(st.sampled_from(["add", "extend", "take back", "hand over", "cancel", "step", "step", "step"])):
            case "add":
                # Beginnings are alike, so that much can be shared.
                same, own = data.draw(st.integers(0, 30)), data.draw(st.lists(st.integers(100, 103), max_size=4))
                tokens = [*range(same), *own] or [0]
                start = data.draw(st.none() | st.integers(1, len(tokens)))
                salt = data.draw(st.sampled_from([None, "a"]))
                sequence = SequenceState(tokens=tokens, scored_from=start, cache_salt=salt)
                wanted[sequence], written[sequence], scored[sequence] = data.draw(st.integers(1, 6)), 0, set()
                scheduler.add(sequence)
                live.append(sequence)
            case "extend" if waiting := [s for s in live if not s.generating and len(s.tokens) < 36]:
                data.draw(st.sampled_from(waiting)).tokens.extend([7, 8])
            case "take back" if waiting := [s for s in live if not s.generating and s.scored_from is None]:
                sequence = data.draw(st.sampled_from(waiting))
                keep = data.draw(st.integers(0, len(sequence.tokens) - 1))
                sequence.tokens[keep:] = [9]
                scheduler.truncate(sequence, min(keep, len(sequence.tokens) - 1))
            case "hand over" if waiting := [s for s in live if not s.generating]:
                data.draw(st.sampled_from(waiting)).generating = True
            case "cancel" if live:
                scheduler.remove(data.draw(st.sampled_from(live)), keep=data.draw(st.booleans()))
            case _:
                step()
    for sequence in live:
        sequence.generating = True
    for _ in range(800):
        if not len(scheduler):
            break
        step()
    assert not len(scheduler), "nobody starves"
    while scheduler.cache.evict_oldest():
        pass
    cache.compute(scheduler.next_batch())
    assert not cache.used
    assert sorted(scheduler.cache.free_slots) == list(range(scheduler.n_slots))


def finish(scheduler: Scheduler, tokens: list[int]) -> None:
    sequence = SequenceState(tokens=list(tokens), generating=True)
    scheduler.add(sequence)
    while sequence.n_past < len(tokens):
        scheduler.advance(scheduler.next_batch())
    scheduler.remove(sequence)


def parted(*, kept: int) -> tuple[Scheduler, SequenceState, Batch]:
    """Start a sequence that begins with the first 20 of `kept` cached tokens, and run its first step."""
    scheduler = make(n_cells=100, n_cached=2)
    finish(scheduler, list(range(kept)))
    other = SequenceState(tokens=[*range(20), 99], generating=True)
    scheduler.add(other)
    return scheduler, other, scheduler.next_batch()


def test_who_begins_the_same_takes_over_what_was_computed() -> None:
    scheduler = make(n_cells=100, n_cached=2)
    finish(scheduler, list(range(30)))
    longer = SequenceState(tokens=[*range(30), 99, 98], generating=True)
    scheduler.add(longer)
    batch = scheduler.next_batch()
    assert longer.cached == 30
    assert not batch.cache_ops, "the slot goes on with its cells"
    assert [(c.start, c.count) for c in batch.chunks] == [(30, 2)]


def test_what_is_lost_is_little_so_the_slot_goes_on() -> None:
    _, other, batch = parted(kept=30)
    assert batch.cache_ops == [Truncate(other.slot or 0, 20)]
    assert [(c.start, c.count) for c in batch.chunks] == [(20, 1)]


def test_answers_that_are_read_again_and_again_keep_a_place_each() -> None:
    answers = [[first] * 20 for first in range(4)]
    scheduler = make(n_cells=400, n_cached=len(answers) + 1, n_batch=64)
    for turn in range(5):
        for answer in answers:
            draft = [100 + turn] * 8
            reading = SequenceState(tokens=[*answer, *draft], generating=True, scored_from=len(answer))
            scheduler.add(reading)
            scheduler.advance(scheduler.next_batch())
            assert reading.cached == (len(answer) - 1 if turn else 0)
            scheduler.remove(reading)
            answer += [*draft[:4], 200 + turn]
    assert len(scheduler.cache.prefixes) == len(answers)


def test_who_parts_earlier_gets_a_copy() -> None:
    scheduler, other, batch = parted(kept=50)
    assert batch.cache_ops == [CopyPrefix(batch.cache_ops[0].source, other.slot or 0, 20)]  # type: ignore[union-attr]
    scheduler.advance(batch)
    assert scheduler.cache.cells_used == 51, "20 cells are shared"


def test_nobody_shares_a_beginning_with_who_has_another_salt() -> None:
    scheduler = make(n_cells=400, n_cached=3, n_batch=64)
    finish(scheduler, list(range(50)))
    salts = ("a", "b", "a", None)
    sequences = [SequenceState(tokens=[*range(50), 99], generating=True, cache_salt=salt) for salt in salts]
    for sequence in sequences:
        scheduler.add(sequence)
    while any(sequence.waiting > 0 for sequence in sequences):
        scheduler.advance(scheduler.next_batch())
    assert [sequence.cached for sequence in sequences] == [0, 0, 50, 50]
    for sequence in sequences:
        scheduler.remove(sequence)
    assert len(scheduler.cache.prefixes) == 3, "of the same tokens one for each salt"


def test_the_last_token_is_always_computed() -> None:
    scheduler = make(n_cells=100, n_cached=2)
    finish(scheduler, list(range(30)))
    same = SequenceState(tokens=list(range(30)), generating=True)
    scheduler.add(same)
    batch = scheduler.next_batch()
    assert same.cached == 29
    assert [(c.start, c.count, c.logits) for c in batch.chunks] == [(29, 1, 1)]


def test_what_was_used_least_recently_goes_first() -> None:
    scheduler = make(n_cells=200, n_cached=2)
    finish(scheduler, [1] * 20)
    finish(scheduler, [2] * 20)
    finish(scheduler, [*[1] * 20, 5])
    finish(scheduler, [3] * 20)
    cached = []
    for first in (1, 2, 3):
        sequence = SequenceState(tokens=[*[first] * 20, 9, 9], generating=True)
        scheduler.add(sequence)
        scheduler.advance(scheduler.next_batch())
        cached.append(sequence.cached)
        scheduler.remove(sequence, keep=False)
    assert cached == [20, 0, 20]


def test_who_comes_at_the_same_time_waits_for_the_common_beginning() -> None:
    scheduler = make(n_cells=400, n_cached=1, n_batch=64)
    first, second = (SequenceState(tokens=[*range(100), end], generating=True) for end in (7, 8))
    stranger = SequenceState(tokens=[500] * 8, generating=True)
    for sequence in (first, second, stranger):
        scheduler.add(sequence)
    batch = scheduler.next_batch()
    assert {c.sequence for c in batch.chunks} == {first}
    scheduler.advance(batch)
    batch = scheduler.next_batch()
    assert {c.sequence for c in batch.chunks} == {first, stranger}, "nobody else waits with it"
    scheduler.advance(batch)
    scheduler.advance(scheduler.next_batch())
    assert second.cached == 100
    assert scheduler.cache.cells_used == 101 + 1 + 8 + 0


def test_a_full_cache_throws_out_the_youngest() -> None:
    scheduler = make(n_cells=10)
    old, young = (SequenceState(tokens=[0] * 4, generating=True) for _ in range(2))
    for sequence in (old, young):
        scheduler.add(sequence)
    scheduler.advance(scheduler.next_batch())
    for sequence in (old, young):
        sequence.tokens.append(1)
    scheduler.advance(scheduler.next_batch())
    for sequence in (old, young):
        sequence.tokens.append(2)
    batch = scheduler.next_batch()
    assert batch.evicted == [young]
    assert [c.sequence for c in batch.chunks] == [old]


@pytest.mark.parametrize("generating", [True, False])
def test_removing_twice_is_no_harm(generating: bool) -> None:
    scheduler = make()
    sequence = SequenceState(tokens=[1], generating=generating)
    scheduler.add(sequence)
    scheduler.next_batch()
    scheduler.remove(sequence)
    scheduler.remove(sequence)
    assert not scheduler.cache.cells_used
    assert sorted(scheduler.cache.free_slots) == list(range(scheduler.n_slots))
