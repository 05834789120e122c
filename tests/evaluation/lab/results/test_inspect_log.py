"""A result folder as inspect_ai reads it, in processes: it replaces parts of asyncio in each process that imports it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.lab.runs.test_cli import by_model, data_file
from tests.evaluation.lab.scripted_edge import Reply, ScriptedEdge
from tests.gkt.run_command import gkt, gkt_process
from tests.running import serving

pytestmark = pytest.mark.system


async def inspect(*arguments: str) -> Any:
    """Run inspect's own command, and return the JSON that it prints."""
    command = [sys.executable, "-m", "inspect_ai", "log", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


async def test_each_arm_is_a_log_that_inspect_can_read(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Reply:
        failed = body["messages"][-1]["content"] == "Question 2?" and body["model"] == "gkt-student"
        return Reply(student=["half"], breaks=True) if failed else by_model(body)

    out, logs = tmp_path / "out", tmp_path / "logs"
    options = ["--task", "gsm8k", "--data", str(data_file(tmp_path, 3)), "--allow-unknown-data", "--out", str(out)]
    async with serving(ScriptedEdge(script).app) as url:
        await gkt("eval", "run", *options, "--edge", url, "--arm", "off", "--arm", "fixed:40")
    first = await gkt_process("eval", "log", str(out), "--to", str(logs))
    again = await gkt_process("eval", "log", str(out), "--to", str(logs))

    assert (first.status, again.status) == (0, 0), first.err + again.err
    assert len(await inspect("list", "--json", "--log-dir", str(logs))) == 2
    off, guided = [await inspect("dump", path) for path in first.out.split()]
    assert (off["eval"]["task"], guided["eval"]["task"]) == ("gsm8k off", "gsm8k fixed:40")
    assert guided["eval"]["model"] == "gkt/small+large"
    assert [score["metrics"]["accuracy"]["value"] for score in guided["results"]["scores"]] == [1.0]
    (score,) = off["results"]["scores"]
    assert (score["metrics"]["accuracy"]["value"], score["unscored_samples"]) == (0.0, 1)
    sample = guided["samples"][0]
    assert (sample["input"], sample["target"]) == ("Question 1?", "3")
    assert sample["output"]["completion"] == "I know.\nThe answer is 3."
    assert (sample["scores"]["gkt"]["value"], sample["scores"]["gkt"]["answer"]) == ("C", "3")
    assert [part["source"] for part in sample["metadata"]["segments"]] == ["teacher", "student"]
    assert sample["model_usage"]["teacher"]["input_tokens_cache_read"] == 20
    assert [sample["error"]["message"] for sample in off["samples"] if sample.get("error")] == ["out of room"]


async def test_a_folder_without_rows(tmp_path: Path) -> None:
    outcome = await gkt_process("eval", "log", str(tmp_path), "--to", str(tmp_path / "logs"))

    assert outcome.status == 1
    assert "is not a result folder" in outcome.err
