"""`gkt experiment simulate` prints its figures and writes them under their names."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gkt.run_command import gkt


async def test_simulate(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    outcome = await gkt("experiment", "simulate", "--runs", "20", "--outcomes", "500", "--json", str(file))
    assert outcome.status == 0, outcome.err
    figures = json.loads(file.read_text("utf-8"))
    assert figures["arm_changes"] == 0
    assert 0 <= figures["aa_false_positive"] <= 0.2
    assert figures["srm_false_alarm"] <= 0.05
    assert {point["workload"] for point in figures["power"]} >= {"mean", "rate", "ratio", "returning_users"}
    for name in ("aa_false_positive", "srm_false_alarm", "arm_changes", "no difference"):
        assert name in outcome.out


async def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "none" / "figures.json"
    outcome = await gkt("experiment", "simulate", "--json", str(file))
    assert outcome.status == 1
    assert f"{file} cannot be written: {file.parent} is not a folder" in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


async def test_a_write_that_fails_ends_the_command_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / f"{'x' * 300}.json"
    outcome = await gkt("experiment", "simulate", "--runs", "10", "--outcomes", "25", "--json", str(file))
    assert outcome.status == 1
    assert "cannot be written: File name too long" in outcome.err
    assert "Traceback" not in outcome.err
    assert "aa_false_positive" in outcome.out
