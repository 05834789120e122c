"""`gkt eval run` on real models: SmolLM2 teaches SmolLM2, two questions under four arms."""

from __future__ import annotations

import json
from pathlib import Path

from edge_student.app import create_app
from edge_student.settings import EdgeSettings
from evaluation.lab.results.folder import read_rows, read_run
from tests.conftest import CLOUD_MODEL, CloudProcess
from tests.gkt.run_command import gkt
from tests.running import serving

QUESTIONS = [
    {"question": "Ann has 3 apples and buys 4 more. How many has she?", "answer": "3 + 4 = 7\n#### 7"},
    {"question": "A box holds 6 eggs. How many eggs are in 5 boxes?", "answer": "6 * 5 = 30\n#### 30"},
]
ARMS = ["off", "fixed:8", "teacher", "cascade:confidence_threshold=0.999"]


async def test_two_questions_on_real_models(cloud_process: CloudProcess, tmp_path: Path) -> None:
    data, out = tmp_path / "own.jsonl", tmp_path / "out"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)) + "\n")
    app = create_app(
        EdgeSettings(
            model=CLOUD_MODEL,
            cloud_url=cloud_process.url,
            cloud_key=cloud_process.key,
            # Wide, as the machine has two cores and vLLM may hold both.
            first_token_deadline_s=120.0,
            next_token_deadline_s=60.0,
        )
    )
    arms = ["--shots", "1", *(word for arm in ARMS for word in ("--arm", arm))]
    options = ["--data", str(data), "--allow-unknown-data", "--out", str(out)]
    options += ["--max-tokens", "24", "--concurrency", "2"]
    async with serving(app) as url:
        ran = await gkt("eval", "run", "--task", "gsm8k", "--edge", url, *options, *arms)
        assert ran.status == 0, ran.err
        again = await gkt("eval", "run", "--task", "gsm8k", "--edge", url, *options, *arms)

    assert again.out == ran.out, "everything is there: nothing is asked again"
    run, rows = read_run(out), read_rows(out)
    assert run is not None
    assert (run.models.student, run.models.teacher) == (CLOUD_MODEL, CLOUD_MODEL)
    assert {(row.question_id[:2], row.arm) for row in rows} == {(f"{at}-", arm) for at in (1, 2) for arm in ARMS}
    for row in rows:
        assert (row.error, row.fallback) == (None, None)
        assert row.output
        assert row.finish
        assert row.correct == (row.extracted is not None and row.extracted == row.target)
        assert sum(segment.chars for segment in row.segments) == len(row.output)
        assert row.first_token_s is not None and row.total_s is not None and row.first_token_s <= row.total_s
        assert (row.student.output > 0) == (row.arm != "teacher")
        assert (row.teacher.output > 0) == (row.arm != "off")
        assert (row.template is not None) == (row.arm != "off")
    guided = {row.question_id: row for row in rows if row.arm == "fixed:8"}
    assert all(0 < row.teacher.output <= 8 for row in guided.values())
    by_arm = {arm: {row.question_id: row.output for row in rows if row.arm == arm} for arm in ARMS}
    assert by_arm["cascade:confidence_threshold=0.999"] == by_arm["teacher"], "the student is never so sure"
