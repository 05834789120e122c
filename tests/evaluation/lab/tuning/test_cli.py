"""`gkt tune` against a scripted edge over real HTTP: its result, its message without one, and how it resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from shared.policy_file import read_policy_file
from shared.protocol.gkt import Mode
from tests.evaluation.lab.scripted_edge import Reply, ScriptedEdge
from tests.gkt.run_command import Outcome, gkt
from tests.running import serving

RIGHT, WRONG = "The answer is 3.", "The answer is 5."
PAIR = ("--arm", "fixed:40", "--arm", "review:acceptance_threshold=0.1,handback_after=3")
EVERYTHING = ("--tuning-range", "1-40", "--reporting-range", "41-80", "--first-block", "20", "--allow-unknown-data")


def data_file(folder: Path, count: int = 80) -> Path:
    file = folder / "own.jsonl"
    lines = [json.dumps({"question": f"Question {at}?", "answer": "#### 3"}) for at in range(1, count + 1)]
    file.write_text("\n".join(lines) + "\n")
    return file


def good_review(body: dict[str, Any]) -> Reply:
    """The teacher is right, in eight tokens, and so is review, with one of them. The student and a prefix are wrong."""
    if body["model"] == "gkt-student":
        return Reply(student=["I guess. ", WRONG])
    if body["model"] == "gkt-teacher":
        return Reply(teacher=["so "] * 7 + [RIGHT])
    if body["gkt"]["mode"] == "review":
        return Reply(teacher=["so "], student=[RIGHT])
    return Reply(teacher=["so "] * 4, student=[WRONG])


def no_good(body: dict[str, Any]) -> Reply:
    """No arm is right, except review one time in four."""
    number = int(body["messages"][-1]["content"].removeprefix("Question ").rstrip("?"))
    if body["model"] == "gkt" and (body["gkt"]["mode"] == "fixed" or number % 4):
        return Reply(teacher=["so "], student=[WRONG])
    return good_review(body)


async def tune(url: str, folder: Path, *options: str) -> Outcome:
    return await gkt(
        *["tune", "--task", "gsm8k", "--data", str(data_file(folder)), "--edge", url, "--out", str(folder / "out")],
        *["--policy", str(folder / "policy.json"), *EVERYTHING, *options],
    )


async def test_the_cheapest_that_keeps_the_share_is_written_with_its_evidence(tmp_path: Path) -> None:
    edge = ScriptedEdge(good_review)
    async with serving(edge.app) as url:
        ran = await tune(url, tmp_path, *PAIR, "--minimize", "tokens", "--keep", "0.9", "--name", "maths")
        asked = edge.questions()
        edge.asked.clear()
        again = await tune(url, tmp_path, *PAIR, "--minimize", "tokens", "--keep", "0.9", "--name", "maths")
        assert edge.asked == [], "all of it is there"
        other = await tune(url, tmp_path, *PAIR, "--minimize", "tokens", "--keep", "0.8")

    assert (ran.status, again.status) == (0, 0), ran.err
    policy = read_policy_file(tmp_path / "policy.json")
    assert (
        policy.name,
        policy.mode,
        policy.acceptance_threshold,
        policy.handback_after,
        policy.confidence_threshold,
    ) == ("maths", Mode.REVIEW, 0.1, 3, None)
    found = policy.evidence
    assert found
    assert (found.task, found.tuning_lines, found.reporting_lines, found.n) == ("gsm8k", "1-40", "41-80", 40)
    assert (found.student, found.teacher) == ("small", "large")
    assert (found.accuracy_student.value, found.accuracy_teacher.value, found.accuracy_policy.value) == (0, 1, 1)
    assert (found.kept_share, found.shown, found.teacher_token_share) == (1, True, 1 / 8)
    assert 0.9 <= found.kept_share_low < 1

    assert "stage 1 of 2" in ran.out
    assert "dropped: keeps " in ran.out
    assert "the rest, with the reporting lines, takes at most" in ran.out
    assert "review:acceptance_threshold=0.1,handback_after=3 is the cheapest that keeps" in ran.out
    of_prefix = {question for question, model in asked if model == "gkt"}
    assert len([1 for _, model in asked if model == "gkt"]) == 20 + 40 + 40, "the prefix was asked the first block only"
    assert len(of_prefix) == 80
    assert other.status == 1
    assert "keep was 0.9, and is now 0.8" in other.err


async def test_the_teacher_for_a_share_of_the_questions_is_a_policy(tmp_path: Path) -> None:
    def most(body: dict[str, Any]) -> Reply:
        number = int(body["messages"][-1]["content"].removeprefix("Question ").rstrip("?"))
        drawn = body.get("gkt") == {"rollout_fraction": 0.9} and number % 10 == 0
        return Reply(student=[WRONG]) if drawn else good_review(body)

    async with serving(ScriptedEdge(most).app) as url:
        ran = await tune(url, tmp_path, "--arm", "teacher:rollout_fraction=0.9", "--keep", "0.8")

    assert ran.status == 0, ran.err
    policy = read_policy_file(tmp_path / "policy.json")
    assert (policy.name, policy.mode, policy.rollout_fraction) == (
        "gsm8k teacher:rollout_fraction=0.9",
        Mode.TEACHER,
        0.9,
    )
    assert policy.evidence
    assert policy.evidence.kept_share == pytest.approx(0.9)
    assert policy.evidence.cost_share == pytest.approx(0.9)


async def test_shares_are_found_without_further_questions(tmp_path: Path) -> None:
    edge = ScriptedEdge(good_review)
    arms = ("--arm", "fixed:40", "--keep", "0.7", "--rollout")
    async with serving(edge.app) as url:
        ran = await tune(url, tmp_path, *arms)
        asked = edge.questions()

    assert ran.status == 0, ran.err
    policy = read_policy_file(tmp_path / "policy.json")
    found = policy.evidence
    assert policy.rollout_fraction is not None and found
    assert (policy.name, policy.mode) == (f"gsm8k teacher:rollout_fraction={policy.rollout_fraction:g}", Mode.TEACHER)
    assert 0.7 <= policy.rollout_fraction < 1, "the student alone has nothing right"
    for value in (found.kept_share, found.teacher_token_share, found.cost_share, found.accuracy_policy.value):
        assert value == pytest.approx(policy.rollout_fraction)
    assert found.accuracy_policy.low <= found.accuracy_policy.value <= found.accuracy_policy.high
    assert f"teacher:rollout_fraction={policy.rollout_fraction:g} is the cheapest that keeps" in ran.out
    assert len(asked) == 3 * 20 + 2 * 40, "one block, after which there was no arm to go on for, and the report"


async def test_a_search_reuses_what_others_have_asked(tmp_path: Path) -> None:
    edge = ScriptedEdge(good_review)
    async with serving(edge.app) as url:
        named = ["--data", str(data_file(tmp_path)), "--allow-unknown-data", "--edge", url, "--data-range", "21-80"]
        arms = ["--arm", "off", "--arm", "teacher", *PAIR]
        await gkt("eval", "run", "--task", "gsm8k", *named, *arms, "--out", str(tmp_path / "run"))
        edge.asked.clear()
        ran = await tune(
            url, tmp_path, *PAIR, "--minimize", "tokens", "--keep", "0.9", "--reuse", str(tmp_path / "run")
        )
        asked = edge.questions()

    assert ran.status == 0, ran.err
    assert len(asked) == 4 * 20, "the first block alone"
    assert read_policy_file(tmp_path / "policy.json").mode == Mode.REVIEW


@pytest.mark.parametrize("write", [False, True])
async def test_where_nothing_reaches_it_the_status_is_3(tmp_path: Path, write: bool) -> None:
    edge = ScriptedEdge(no_good)
    async with serving(edge.app) as url:
        ran = await tune(url, tmp_path, *PAIR, "--minimize", "tokens", *(["--write-best-effort"] if write else []))

    assert ran.status == 3, ran.err
    assert "no arm that costs less than the teacher keeps" in ran.out
    assert (tmp_path / "policy.json").exists() is write
    assert (tmp_path / "out" / "report").exists() is write
    if write:
        found = read_policy_file(tmp_path / "policy.json").evidence
        assert found and (found.kept_share, found.shown) == (0.25, False)
    else:
        assert "the best effort is review:acceptance_threshold=0.1,handback_after=3: it keeps 25.0" in " ".join(
            ran.out.split()
        )


async def test_a_choice_that_the_reporting_lines_do_not_bear_out_is_not_written(tmp_path: Path) -> None:
    def lucky(body: dict[str, Any]) -> Reply:
        number = int(body["messages"][-1]["content"].removeprefix("Question ").rstrip("?"))
        return good_review(body) if number <= 40 else no_good(body)

    async with serving(ScriptedEdge(lucky).app) as url:
        ran = await tune(url, tmp_path, *PAIR)

    assert ran.status == 3, ran.err
    assert "do not confirm" in ran.out
    assert not (tmp_path / "policy.json").exists()


async def test_a_search_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """If the cloud fails in the second stage, the first one is neither run nor decided again."""
    away = True

    def script(body: dict[str, Any]) -> Reply:
        number = int(body["messages"][-1]["content"].removeprefix("Question ").rstrip("?"))
        if away and number > 30 and body["max_tokens"] > 8 and body["model"] != "gkt-student":
            return Reply(student=[WRONG], fallback="stalled")
        return good_review(body)

    edge = ScriptedEdge(script)
    async with serving(edge.app) as url:
        stopped = await tune(url, tmp_path, *PAIR)
        first = len(edge.questions())
        decided = json.loads((tmp_path / "out" / "tune.json").read_text())["decisions"]
        away = False
        edge.asked.clear()
        ran = await tune(url, tmp_path, *PAIR)

    assert stopped.status == 1
    assert "stage-2: 20 of 60 answers do not measure their arm" in stopped.err
    assert "fell back: stalled. The same command asks these again" in stopped.err
    assert (first, len(decided)) == (20 * 4 + 20 * 3, 1)
    assert ran.status == 0, ran.err
    assert len(edge.questions()) == 20 + 40 * 3, "what had fallen back, and the report"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--reporting-range", "40-80"), 1, "tuning lines 1-40 and reporting lines 40-80 overlap"),
        (("--arm", "cascade:confidence_threshold=0.9"), 1, "no policy file can express it"),
        (("--arm", "revue"), 1, "there is no 'revue'"),
        (("--keep", "nan"), 2, "--keep must be above 0"),
        (("--keep", "0"), 2, "--keep must be above 0"),
        (("--reporting-range", "41-90"), 1, "has 80 lines"),
        (("--minimize", "luck"), 2, "luck"),
    ],
)
async def test_what_is_wrong_is_said_before_anything_is_asked(
    tmp_path: Path, options: tuple[str, ...], status: int, said: str
) -> None:
    ran = await tune("http://127.0.0.1:9", tmp_path, *options)
    assert (ran.status, said in " ".join(ran.err.split())) == (status, True), ran.err
    assert not (tmp_path / "out").exists()


async def test_what_is_left_out_has_a_place_of_its_own(tmp_path: Path) -> None:
    async with serving(ScriptedEdge(good_review).app) as url:
        named = ["--data", str(data_file(tmp_path)), "--allow-unknown-data", "--edge", url, "--first-block", "20"]
        ran = await gkt(
            "tune", "--task", "gsm8k", *named, *PAIR, "--keep", "0.9", "--minimize", "tokens", folder=tmp_path
        )

    assert ran.status == 0, ran.err
    assert read_policy_file(tmp_path / "gsm8k-policy.json").evidence is not None
    spec = json.loads((tmp_path / "tuning-gsm8k" / "tune.json").read_text())["spec"]
    assert (spec["tuning_range"], spec["reporting_range"]) == ("1-40", "41-80"), "the first half and the second"


async def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("Dear")
    ran = await tune("http://127.0.0.1:9", tmp_path)
    assert (ran.status, "neither empty nor a folder of gkt tune" in ran.err) == (1, True)


async def test_another_edge_in_the_middle_is_refused(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Reply:
        number = int(body["messages"][-1]["content"].removeprefix("Question ").rstrip("?"))
        fell = number > 20 and body["max_tokens"] > 8 and body["model"] != "gkt-student"
        return Reply(student=[WRONG], fallback="stalled") if fell else good_review(body)

    async with serving(ScriptedEdge(script).app) as url:
        assert (await tune(url, tmp_path, *PAIR)).status == 1
    shutil.rmtree(tmp_path / "out" / "stage-2")
    async with serving(ScriptedEdge(good_review, model="another").app) as url:
        ran = await tune(url, tmp_path, *PAIR)

    assert ran.status == 1
    assert (
        "stage-2 is of other models or templates than stage-1: another and large; stage-1 had small and large"
        in ran.err
    )
