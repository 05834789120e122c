"""The short run: real processes, scripted words, every kind of fault that needs no library, and no lost answer."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from evaluation.chaos.faults import ChaosFault, schedule
from evaluation.chaos.workload import Behaviour, workload
from tests.gkt.run_command import gkt_process

EDGES = ["edge-a", "edge-b"]


@pytest.mark.system
async def test_faults_of_every_kind_lose_and_mix_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    options = ["--requests", "60", "--per-s", "5", "--student", "none", "--seed", "1"]

    outcome = await gkt_process("chaos", *options, "--json", str(file), "--logs", str(tmp_path / "logs"))

    assert file.exists(), outcome.err + outcome.out
    figures = json.loads(file.read_text())
    assert (figures["lost"], figures["mixed"]) == (0, 0), outcome.err + outcome.out
    held = {name: count for name, count in figures["violations"].items() if name != "recovered"}
    assert not any(held.values()), outcome.err + outcome.out
    assert figures["recovered_s"] is not None
    assert figures["requests"] == 60
    assert {kind for kind in ChaosFault if kind is not ChaosFault.CLOCK_JUMP} <= figures["faults"].keys()
    assert figures["whole"] > 0
    assert (tmp_path / "logs" / "requests.jsonl").exists()


def test_a_seed_has_its_requests_and_faults() -> None:
    assert workload(7, 200, EDGES, span_s=30) == workload(7, 200, EDGES, span_s=30)
    assert workload(7, 200, EDGES, span_s=30) != workload(8, 200, EDGES, span_s=30)
    assert schedule(7, EDGES, span_s=30) == schedule(7, EDGES, span_s=30)
    assert schedule(7, EDGES, span_s=30) != schedule(8, EDGES, span_s=30)


def test_every_kind_of_fault_and_of_client_has_its_turn() -> None:
    kinds = {fault.kind for sequence in schedule(3, EDGES, span_s=12) for fault in sequence}
    drawn = workload(3, 300, EDGES, span_s=30)

    assert kinds == set(ChaosFault)
    assert {ask.behaviour for ask in drawn} == set(Behaviour)
    assert len({ask.mark.nonce for ask in drawn}) == 300
    assert len({(ask.mode, ask.stream) for ask in drawn}) == 14


def test_faults_of_one_sequence_do_not_overlap() -> None:
    for sequence in schedule(5, EDGES, span_s=60):
        for fault, following in pairwise(sequence):
            assert fault.at_s + fault.lasts_s <= following.at_s
