"""Judging in pairs: both orders count, and a judge that refuses loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from evaluation.lab import tasks
from evaluation.lab.arms import parse_all
from evaluation.lab.errors import BadTask, JudgeRefused
from evaluation.lab.results.folder import read_rows
from evaluation.lab.runs.config import RunConfig
from evaluation.lab.runs.judge import Judge
from evaluation.lab.runs.runner import run
from evaluation.lab.tasks.data import LineRange, load
from tests.evaluation.lab.scripted_edge import Reply, ScriptedEdge
from tests.running import serving


def silent(done: int, total: int) -> None:
    assert done <= total


class ScriptedJudge:
    """A judge whose `say` gets the texts of assistants A and B and returns the judge's words. None is a refusal."""

    def __init__(self, say: Callable[[str, str], str | None]) -> None:
        self.asked = 0
        self._say = say
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self._complete)

    async def _complete(self, request: Request) -> Response:
        self.asked += 1
        body = await request.json()
        text = body["messages"][0]["content"]
        _, first, second = text.split("[Assistant ")
        said = self._say(first, second)
        if said is None:
            return JSONResponse({"error": {"message": "not this"}}, 403)
        return JSONResponse({"choices": [{"message": {"content": said}}]})


def script(body: dict[str, Any]) -> Reply:
    turn = sum(message["role"] == "user" for message in body["messages"])
    word = {"gkt-student": "small", "gkt-teacher": "large"}[body["model"]]
    return Reply(student=[f"{word}{turn}"]) if word == "small" else Reply(teacher=[f"{word}{turn}"])


def setup(folder: Path, judge: Judge | None) -> RunConfig:
    file = folder / "own.jsonl"
    file.write_text(json.dumps({"question_id": 1, "turns": ["Write a song.", "Shorter."]}) + "\n")
    task = tasks.load("mt_bench")
    data = load(task, file, LineRange(), allow_unknown=True)
    return RunConfig(task, data, parse_all(["off", "teacher"]), judge=judge)


async def judged(folder: Path, judge: ScriptedJudge) -> dict[str, tuple[bool | None, float | None]]:
    async with serving(ScriptedEdge(script).app) as edge, serving(judge.app, ready=False) as url:
        rows = await run(setup(folder, Judge(f"{url}/v1", "wise")), edge, folder / "out", silent)
    return {row.arm: (row.correct, row.score) for row in rows}


async def test_both_turns_are_asked_and_stand_in_the_output(tmp_path: Path) -> None:
    edge = ScriptedEdge(script)
    async with serving(edge.app) as url:
        off, teacher = await run(setup(tmp_path, None), url, tmp_path / "out", silent)

    assert off.question == "Write a song.\n\nShorter."
    assert (off.output, teacher.output) == ("small1\n\nsmall2", "large1\n\nlarge2")
    assert (off.correct, off.score) == (None, None)
    assert sum(segment.chars for segment in off.segments) == len(off.output)
    second = next(body["messages"] for body in edge.asked if len(body["messages"]) == 3)
    assert [message["content"] for message in second] == ["Write a song.", "small1", "Shorter."]


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (lambda first, _: "[[A]]" if "small1" in first else "[[B]]", (True, 1.0)),
        (lambda first, _: "[[B]]" if "small1" in first else "[[A]]", (False, 0.0)),
        (lambda first, second: "The first one. [[A]]", (True, 0.5)),
        (lambda first, second: "Not [[A]], not [[B]], so [[C]]", (True, 0.5)),
        (lambda first, second: "Both are fine.", (None, None)),
    ],
)
async def test_verdicts_of_both_orders(
    tmp_path: Path, say: Callable[[str, str], str], expected: tuple[bool | None, float | None]
) -> None:
    found = await judged(tmp_path, ScriptedJudge(say))

    assert found == {"off": expected, "teacher": (True, 0.5)}


async def test_a_judge_that_refuses_loses_no_answer_and_may_be_asked_again(tmp_path: Path) -> None:
    with pytest.raises(JudgeRefused, match=r"answered 403: .*not this"):
        await judged(tmp_path, ScriptedJudge(lambda first, second: None))
    assert {row.output for row in read_rows(tmp_path / "out")} == {"small1\n\nsmall2", "large1\n\nlarge2"}

    willing = ScriptedJudge(lambda first, second: "[[C]]")
    assert (await judged(tmp_path, willing))["off"] == (True, 0.5)
    assert willing.asked == 2
    await judged(tmp_path, willing)
    assert willing.asked == 2, "what is judged stays judged"


async def test_a_judge_that_is_not_there_or_has_nothing_to_judge(tmp_path: Path) -> None:
    async with serving(ScriptedEdge(script).app) as edge:
        with pytest.raises(JudgeRefused, match=r"127\.0\.0\.1:9"):
            await run(setup(tmp_path, Judge("http://127.0.0.1:9/v1", "wise")), edge, tmp_path / "out", silent)
        gsm8k = tasks.load("gsm8k")
        asked = setup(tmp_path, Judge("http://127.0.0.1:9/v1", "wise"))
        with pytest.raises(BadTask, match="gsm8k takes no judge"):
            await run(RunConfig(gsm8k, asked.data, asked.arms, judge=asked.judge), edge, tmp_path / "new", silent)
