"""A result folder as inspect_ai reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.evaluation.lab.runs.test_cli import by_model, data_file
from tests.evaluation.lab.scripted_edge import Reply, ScriptedEdge
from tests.gkt.run_command import gkt
from tests.running import serving


async def test_each_arm_is_a_log_that_inspect_can_read(tmp_path: Path) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    def script(body: dict[str, Any]) -> Reply:
        failed = body["messages"][-1]["content"] == "Question 2?" and body["model"] == "gkt-student"
        return Reply(student=["half"], breaks=True) if failed else by_model(body)

    out, logs = tmp_path / "out", tmp_path / "logs"
    options = ["--task", "gsm8k", "--data", str(data_file(tmp_path, 3)), "--allow-unknown-data", "--out", str(out)]
    async with serving(ScriptedEdge(script).app) as url:
        await gkt("eval", "run", *options, "--edge", url, "--arm", "off", "--arm", "fixed:40")
    first = await gkt("eval", "log", str(out), "--to", str(logs))
    again = await gkt("eval", "log", str(out), "--to", str(logs))

    assert (first.status, again.status) == (0, 0), first.err + again.err
    assert len(list_eval_logs(str(logs))) == 2
    off, guided = (read_eval_log(path) for path in first.out.split())
    assert off.samples and guided.samples and off.results and guided.results
    assert (off.eval.task, guided.eval.task) == ("gsm8k off", "gsm8k fixed:40")
    assert guided.eval.model == "gkt/small+large"
    assert [score.metrics["accuracy"].value for score in guided.results.scores] == [1.0]
    assert [(score.metrics["accuracy"].value, score.unscored_samples) for score in off.results.scores] == [(0.0, 1)]
    sample = guided.samples[0]
    assert (sample.input, sample.target) == ("Question 1?", "3")
    assert sample.output.completion == "I know.\nThe answer is 3."
    assert sample.scores and (sample.scores["gkt"].value, sample.scores["gkt"].answer) == ("C", "3")
    assert [part["source"] for part in sample.metadata["segments"]] == ["teacher", "student"]
    assert sample.model_usage["teacher"].input_tokens_cache_read == 20
    errors = [sample.error.message for sample in off.samples if sample.error]
    assert errors == ["out of room"]


async def test_a_folder_without_rows(tmp_path: Path) -> None:
    outcome = await gkt("eval", "log", str(tmp_path), "--to", str(tmp_path / "logs"))

    assert outcome.status == 1
    assert "is not a result folder" in outcome.err
