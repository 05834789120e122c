"""Runs against a scripted edge over real HTTP: the requests, the stored rows, and the repeated questions."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from evaluation.lab import tasks
from evaluation.lab.arms import parse_all
from evaluation.lab.errors import ArmRefused, BadFolder, EdgeGone
from evaluation.lab.results.folder import read_rows
from evaluation.lab.results.rows import Row, SideTokens
from evaluation.lab.runs.config import RunConfig
from evaluation.lab.runs.edge_client import TRIES
from evaluation.lab.runs.runner import ordered, run
from evaluation.lab.tasks import numbers
from evaluation.lab.tasks.base import Task
from evaluation.lab.tasks.data import Dataset, LineRange, load
from tests.evaluation.lab.scripted_edge import Reply, ScriptedEdge
from tests.gkt.run_command import gkt
from tests.running import serving

ARMS = ("off", "fixed:40", "teacher")
STUDENT = Reply(student=["I guess.", "\nThe answer is 5."])
TEACHER = Reply(teacher=["I know.", "\nThe answer is 3."])
GUIDED = Reply(teacher=["I know."], student=["\nThe answer", " is 3."])


def by_model(body: dict[str, Any]) -> Reply:
    return {"gkt-student": STUDENT, "gkt-teacher": TEACHER, "gkt": GUIDED}[body["model"]]


def data_file(folder: Path, count: int) -> Path:
    file = folder / "own.jsonl"
    lines = [json.dumps({"question": f"Question {at}?", "answer": "#### 3"}) for at in range(1, count + 1)]
    file.write_text("\n".join(lines) + "\n")
    return file


def setup(folder: Path, *, count: int = 6, arms: Sequence[str] = ARMS, **options: Any) -> RunConfig:
    task = tasks.load("gsm8k")
    data = load(task, data_file(folder, count), LineRange(), allow_unknown=True)
    return RunConfig(task, data, parse_all(list(arms)), **{"concurrency": 2, **options})


def of_lines(whole: RunConfig, lines: LineRange) -> Dataset:
    return load(whole.task, whole.data.path, lines, allow_unknown=True)


def silent(done: int, total: int) -> None:
    assert done <= total


async def test_every_question_is_asked_under_every_arm_and_all_is_kept(tmp_path: Path) -> None:
    edge = ScriptedEdge(by_model)

    async with serving(edge.app) as url:
        rows = await run(setup(tmp_path), url, tmp_path / "out", silent)

    assert rows == read_rows(tmp_path / "out")
    assert len(rows) == 18
    guided = next(row for row in rows if row.arm == "fixed:40")
    assert guided == Row(
        task="gsm8k",
        question_id=guided.question_id,
        arm="fixed:40",
        correct=True,
        extracted="3",
        target="3",
        question="Question 1?",
        output="I know.\nThe answer is 3.",
        segments=guided.segments,
        teacher=SideTokens(prompt=30, cached=20, output=1, calls=2),
        student=SideTokens(prompt=25, output=2),
        template="answer@1#abcd",
        first_token_s=guided.first_token_s,
        total_s=guided.total_s,
        bytes_sent=500,
        bytes_received=90,
        finish="stop",
    )
    assert [(part.source, part.chars, part.tokens) for part in guided.segments] == [
        ("teacher", 7, 1),
        ("student", 17, 2),
    ]
    assert guided.first_token_s is not None and guided.total_s is not None
    assert 0 < guided.first_token_s <= guided.total_s
    assert {row.correct for row in rows if row.arm == "off"} == {False}
    assert {row.correct for row in rows if row.arm == "teacher"} == {True}
    body = next(body for body in edge.asked if body["model"] == "gkt" and body["max_tokens"] == 300)
    assert (body["temperature"], body["seed"], body["stream"]) == (0, 0, True)
    assert body["gkt"] == {"mode": "fixed", "max_guidance_tokens": 40}
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 4 + ["user"]


async def test_no_arm_finds_in_a_cache_what_another_arm_or_run_has_put_there(tmp_path: Path) -> None:
    edge = ScriptedEdge(by_model)
    arms = ("off", "fixed:40", "route:confidence_threshold=0.99")

    async with serving(edge.app) as url:
        for out in ("one", "two"):
            await run(setup(tmp_path, count=2, arms=arms), url, tmp_path / out, silent)

    asked = [body for body in edge.asked if body["max_tokens"] > 8]  # the probes are left out
    assert len({body["cache_salt"] for body in asked}) == 2 * len(arms)
    by_salt = {(body["cache_salt"], body["model"]) for body in asked}
    assert len(by_salt) == 2 * (len(arms) + 1), "both requests of an arm that takes two have the same"


def test_arms_take_turns_block_by_block(tmp_path: Path) -> None:
    chosen = setup(tmp_path, count=5, arms=("off", "teacher"))

    jobs = [(job.question.id.partition("-")[0], job.arm.text) for job in ordered(chosen.data.questions, chosen.arms, 2)]

    assert jobs == [
        *[("1", "off"), ("2", "off"), ("1", "teacher"), ("2", "teacher")],
        *[("3", "teacher"), ("4", "teacher"), ("3", "off"), ("4", "off")],
        *[("5", "off"), ("5", "teacher")],
    ]


async def test_a_run_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """After lost rows, a torn last line and a failed request, only the missing questions are asked again."""
    failing = {"Question 2?"}

    def script(body: dict[str, Any]) -> Reply:
        failed = body["messages"][-1]["content"] in failing and body["model"] == "gkt"
        return Reply(student=["half"], breaks=True) if failed else by_model(body)

    edge = ScriptedEdge(script)
    out = tmp_path / "out"
    async with serving(edge.app) as url:
        first = await run(setup(tmp_path), url, out, silent)
        assert [row.error for row in first if row.error] == ["out of room"]
        assert [row.correct for row in first if row.error] == [None]
        lines = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
        (out / "rows.jsonl").write_bytes(b"".join(lines[:-3]) + lines[-3][:50])
        assert len(read_rows(out)) == 15
        failing.clear()
        edge.asked.clear()
        second = await run(setup(tmp_path), url, out, silent)
        assert len(edge.questions()) == 4
        assert ("Question 2?", "gkt") in edge.questions()
        edge.asked.clear()
        assert await run(setup(tmp_path), url, out, silent) == second
        assert edge.asked == []

    assert len(second) == 18
    assert not any(row.error for row in second)


async def test_answers_of_other_runs_are_taken_where_the_same_would_be_asked(tmp_path: Path) -> None:
    edge = ScriptedEdge(by_model)
    async with serving(edge.app) as url:
        first = await run(setup(tmp_path, arms=("off", "fixed:40")), url, tmp_path / "one", silent)
        edge.asked.clear()
        wide = setup(tmp_path, reuse=[tmp_path / "one"])
        rows = await run(replace(wide, data=of_lines(wide, LineRange(2, 5))), url, tmp_path / "two", silent)
        asked = edge.questions()

    assert {model for _, model in asked} == {"gkt-teacher"}
    assert len(asked) == 4
    assert len(rows) == 12
    taken = {(row.question_id, row.arm): row for row in first}
    assert [row for row in rows if row.arm != "teacher"] == [
        taken[row.question_id, row.arm] for row in rows if row.arm != "teacher"
    ]


async def test_answers_that_failed_or_fell_back_are_not_taken(tmp_path: Path) -> None:
    def stalled(body: dict[str, Any]) -> Reply:
        return by_model(body) if body["max_tokens"] <= 8 else Reply(student=["5."], fallback="stalled")

    async with serving(ScriptedEdge(stalled).app) as url:
        await run(setup(tmp_path, arms=("fixed:40",)), url, tmp_path / "one", silent)
    edge = ScriptedEdge(by_model)
    async with serving(edge.app) as url:
        rows = await run(setup(tmp_path, arms=("fixed:40",), reuse=[tmp_path / "one"]), url, tmp_path / "two", silent)
    assert len(edge.questions()) == 6
    assert not any(row.fallback for row in rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_tokens": 200}, "max_tokens was 300, and is now 200"),
        ({"shots": 0}, "shots was 4, and is now 0"),
        ({"seed": 1}, "seed was 0, and is now 1"),
    ],
)
async def test_a_run_of_other_settings_is_not_reused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    edge = ScriptedEdge(by_model)
    async with serving(edge.app) as url:
        await run(setup(tmp_path), url, tmp_path / "one", silent)
        edge.asked.clear()
        with pytest.raises(BadFolder, match=f"one cannot be reused: .*{reason}"):
            await run(setup(tmp_path, reuse=[tmp_path / "one"], **change), url, tmp_path / "two", silent)
        with pytest.raises(BadFolder, match="is not a result folder"):
            await run(setup(tmp_path, reuse=[tmp_path]), url, tmp_path / "three", silent)
    assert edge.questions() == []


async def test_a_run_of_other_data_or_another_model_is_not_reused(tmp_path: Path) -> None:
    async with serving(ScriptedEdge(by_model).app) as url:
        await run(setup(tmp_path), url, tmp_path / "one", silent)
        with pytest.raises(BadFolder, match="one cannot be reused: its data is another file, own"):
            await run(setup(tmp_path, count=5, reuse=[tmp_path / "one"]), url, tmp_path / "two", silent)
    async with serving(ScriptedEdge(by_model, model="another").app) as url:
        with pytest.raises(BadFolder, match="its models are others: student was small, and is now another"):
            await run(setup(tmp_path, reuse=[tmp_path / "one"]), url, tmp_path / "three", silent)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arms": ("off", "teacher")}, "arms was"),
        ({"max_tokens": 200}, "max_tokens was 300, and is now 200"),
        ({"shots": 2}, "prompts_sha256"),
        ({"count": 5}, "data_sha256"),
        ({"seed": 1}, "seed"),
    ],
)
async def test_a_folder_of_another_configuration_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    async with serving(ScriptedEdge(by_model).app) as url:
        rows = await run(setup(tmp_path), url, tmp_path / "out", silent)
        with pytest.raises(BadFolder, match=named):
            await run(setup(tmp_path, **change), url, tmp_path / "out", silent)

    assert read_rows(tmp_path / "out") == rows


async def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with serving(ScriptedEdge(by_model).app) as url:
        await run(setup(tmp_path), url, out, silent)
    (out / "rows.jsonl").unlink()

    async with serving(ScriptedEdge(by_model, model="another").app) as url:
        with pytest.raises(BadFolder, match="student was small, and is now another"):
            await run(setup(tmp_path), url, out, silent)


async def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("Dear")

    with pytest.raises(BadFolder, match=r"letter\.txt"):
        await run(setup(tmp_path), "http://127.0.0.1:9", tmp_path / "out", silent)


async def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(BadFolder, match="another run is writing into"):
        await run(setup(tmp_path), "http://127.0.0.1:9", out, silent)


async def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with serving(ScriptedEdge(by_model).app) as url:
        await run(setup(tmp_path), url, out, silent)
    lines = (out / "rows.jsonl").read_text().splitlines()
    (out / "rows.jsonl").write_text("\n".join([lines[0], "{}", *lines[2:]]) + "\n")

    with pytest.raises(BadFolder, match=r"rows\.jsonl, line 2: task: Field required"):
        read_rows(out)
    with pytest.raises(BadFolder, match="is not a result folder"):
        read_rows(tmp_path)


async def test_an_edge_that_goes_away_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    edge = ScriptedEdge(by_model)
    out = tmp_path / "out"
    away = asyncio.Event()
    there: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with serving(edge.app) as url:
            there.set_result(url)
            await away.wait()

    def watch(done: int, total: int) -> None:
        if done == 5:
            away.set()

    serving_task = asyncio.create_task(serve())
    with pytest.raises(EdgeGone, match="is gone"):
        await run(setup(tmp_path, count=60), await there, out, watch)
    await serving_task
    kept = read_rows(out)
    assert 5 <= len(kept) < 180

    async with serving(edge.app) as url:
        rows = await run(setup(tmp_path, count=60), url, out, silent)
    assert len(rows) == 180
    assert rows[: len(kept)] == kept


async def test_an_edge_that_is_not_there(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9", "nonsense", "http://[", "ftp://127.0.0.1"):
        with pytest.raises(EdgeGone):
            await run(setup(tmp_path), url, tmp_path / "out", silent)
    assert not (tmp_path / "out" / "run.json").exists()


async def test_an_arm_that_the_edge_does_not_know_is_known_before_anything_is_run(tmp_path: Path) -> None:
    edge = ScriptedEdge(lambda body: Reply(status=400) if "gkt" in body else by_model(body))

    async with serving(edge.app) as url:
        with pytest.raises(ArmRefused, match=r"refuses arm 'review:0.1': 400: not with .*'mode': 'review'"):
            await run(setup(tmp_path, arms=("off", "review:0.1")), url, tmp_path / "out", silent)

    assert edge.questions() == []
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize("fallback", ["not_configured", "failed"])
async def test_an_arm_without_its_cloud_is_known_before_anything_is_run(tmp_path: Path, fallback: str) -> None:
    edge = ScriptedEdge(lambda _: Reply(student=["x"], fallback=fallback))

    async with serving(edge.app) as url:
        with pytest.raises(ArmRefused, match=rf"'teacher' needs the cloud.*{fallback}"):
            await run(setup(tmp_path, arms=("teacher",)), url, tmp_path / "out", silent)

    assert edge.questions() == []


async def test_fallbacks_are_kept_and_may_be_asked_again(tmp_path: Path) -> None:
    stalled = Reply(teacher=["I"], student=["The answer is 4."], fallback="stalled")
    edge = ScriptedEdge(lambda body: stalled if "Question 1?" in body["messages"][-1]["content"] else by_model(body))
    out = tmp_path / "out"
    async with serving(edge.app) as url:
        rows = await run(setup(tmp_path, count=3, arms=("fixed:40",)), url, out, silent)
        assert [row.fallback for row in rows] == ["stalled", None, None]
        edge._script = by_model
        again = await run(setup(tmp_path, count=3, arms=("fixed:40",), retry_fallbacks=True), url, out, silent)

    assert [row.fallback for row in again] == [None, None, None]
    assert again[1:] == rows[1:]


async def test_an_edge_without_room_is_asked_again(tmp_path: Path) -> None:
    refusals = [503] * (TRIES - 1)
    edge = ScriptedEdge(lambda body: Reply(status=refusals.pop()) if refusals else by_model(body))

    async with serving(edge.app) as url:
        rows = await run(setup(tmp_path, count=2, arms=("off",)), url, tmp_path / "out", silent)

    assert [row.error for row in rows] == [None, None]


@pytest.mark.parametrize(("confidence_threshold", "asked_teacher"), [(0.95, True), (0.85, False)])
async def test_a_cascade_asks_the_teacher_where_the_student_is_not_sure(
    tmp_path: Path, confidence_threshold: float, asked_teacher: bool
) -> None:
    edge = ScriptedEdge(by_model)  # its student gives each of its tokens 0.905

    async with serving(edge.app) as url:
        (row,) = await run(
            setup(tmp_path, count=1, arms=(f"cascade:confidence_threshold={confidence_threshold}",)),
            url,
            tmp_path / "out",
            silent,
        )

    assert [model for _, model in edge.questions()] == ["gkt-student", "gkt-teacher"][: 1 + asked_teacher]
    assert row.correct is asked_teacher
    assert row.output == "".join(TEACHER.teacher if asked_teacher else STUDENT.student)
    assert row.student.output == 2
    assert row.teacher == (SideTokens(prompt=30, cached=20, output=2, calls=2) if asked_teacher else SideTokens())
    assert row.first_token_s is not None


@pytest.mark.parametrize(("confidence_threshold", "then"), [(0.95, "gkt-teacher"), (0.85, "gkt-student")])
async def test_a_route_is_chosen_by_the_students_first_tokens(
    tmp_path: Path, confidence_threshold: float, then: str
) -> None:
    def script(body: dict[str, Any]) -> Reply:
        return Reply(student=["I", " guess"], finish="length") if body["max_tokens"] == 9 else by_model(body)

    edge = ScriptedEdge(script)
    async with serving(edge.app) as url:
        chosen = setup(tmp_path, count=1, arms=(f"route:{confidence_threshold},probe_tokens=9",))
        (row,) = await run(chosen, url, tmp_path / "out", silent)

    assert [(body["model"], body["max_tokens"]) for body in edge.asked[-2:]] == [("gkt-student", 9), (then, 300)]
    assert row.student.output + row.teacher.output == 4, "the tokens that decided count too"


async def test_the_naive_way_puts_the_teachers_words_into_a_message_that_another_server_answers(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Reply:
        is_teacher = body["model"] == "gkt-teacher"
        return Reply(teacher=["2 + 2", " = "], finish="length") if is_teacher else Reply(student=["The answer is 4."])

    edge = ScriptedEdge(script)
    async with serving(edge.app) as url:
        (row,) = await run(setup(tmp_path, count=1, arms=("naive:20",)), url, tmp_path / "out", silent)

    first, second = edge.asked[-2:]
    assert (first["model"], first["max_tokens"]) == ("gkt-teacher", 20)
    assert (second["model"], second["max_tokens"]) == ("gkt-student", 280)
    assert second["messages"][-1] == {"role": "assistant", "content": "2 + 2 = "}
    assert row.output == "2 + 2 = The answer is 4."
    assert [segment.source for segment in row.segments] == ["teacher", "student"]
    assert (row.teacher.output, row.student.output) == (2, 1)


async def test_a_scorer_that_fails_loses_no_answer(tmp_path: Path) -> None:
    chosen = setup(tmp_path, count=1, arms=("off",))

    def score(extracted: str, item: object) -> bool:
        raise ZeroDivisionError("by nought")

    task = Task(name="own", item=chosen.task.item, extract=numbers.answer, score=score)
    async with serving(ScriptedEdge(by_model).app) as url:
        (row,) = await run(RunConfig(task, chosen.data, chosen.arms), url, tmp_path / "out", silent)

    assert row.error == "the scorer failed: ZeroDivisionError: by nought"
    assert row.output == "".join(STUDENT.student)
    assert row.correct is None


@pytest.mark.system
async def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    edge = ScriptedEdge(by_model)
    out = tmp_path / "out"
    options = [
        "--task",
        "gsm8k",
        "--data",
        str(data_file(tmp_path, 300)),
        "--allow-unknown-data",
        "--out",
        str(out),
        "--arm",
        "off",
    ]
    async with serving(edge.app) as url:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "gkt", "eval", "run", "--edge", url, *options],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        while len(edge.questions()) < 20:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    assert "the same command goes on from there" in " ".join(err.decode().split())
    assert 10 <= len(read_rows(out)) < 300


async def test_the_command_prints_a_table_and_warns(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Reply:
        fell = body["model"] == "gkt" and body["max_tokens"] > 8
        return Reply(teacher=["I"], student=["know"], fallback="stalled") if fell else by_model(body)

    file = data_file(tmp_path, 4)
    command = [
        "eval",
        "run",
        "--task",
        "gsm8k",
        "--data",
        str(file),
        "--out",
        str(tmp_path / "out"),
        "--data-range",
        "2-4",
    ]
    async with serving(ScriptedEdge(script).app) as url:
        arms = ["--edge", url, "--arm", "off", "--arm", "fixed:40", "--arm", "teacher"]
        refused = await gkt(*command, *arms)
        ran = await gkt(*command, *arms, "--allow-unknown-data", "--limit", "2")
        other = await gkt(*command, *arms, "--allow-unknown-data", "--limit", "3")
    gone = await gkt(*command, *arms[:2], "--arm", "off", "--allow-unknown-data", "--out", str(tmp_path / "new"))

    assert (refused.status, ran.status, other.status, gone.status) == (1, 0, 1, 1)
    assert "own.jsonl is not a data file that the lab knows" in refused.err
    table = [line.split() for line in ran.out.splitlines()]
    assert ["off", "2", "0.0", "%", "0", "0.0", "2.0"] in [line[:7] for line in table]
    assert ["teacher", "2", "100.0", "%", "0", "2.0", "0.0"] in [line[:7] for line in table]
    assert "fixed:40: in 2 of 2 answers the student had to go on without the cloud (stalled 2)" in ran.out
    assert "limit was 2, and is now 3" in other.err
    assert "no edge can be reached" in gone.err
    assert len(gone.err.strip().splitlines()) <= 2
