"""Accuracy and cost of arms, on rows that are few enough to calculate by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evaluation.lab.analysis.arm_summary import by_task, summarise
from evaluation.lab.analysis.disagreements import best_policy, changes, pieces
from evaluation.lab.results.rows import Row, SideTokens
from shared.prices import Prices
from shared.protocol.gkt import Segment, Source

PRICES = Prices(input_usd=1, cached_input_usd=0.1, output_usd=4)


def _row(arm: str, question: int, correct: bool | None, *, output: int = 0, prompt: int = 0, cached: int = 0) -> Row:
    return Row(
        task="maths",
        question_id=f"q{question}",
        arm=arm,
        correct=correct,
        extracted=None if correct is None else "4",
        teacher=SideTokens(prompt=prompt, cached=cached, output=output, calls=1 if output else 0),
        student=SideTokens(output=50),
        total_s=float(question + 1),
        first_token_s=0.5,
        bytes_sent=100,
        bytes_received=20,
    )


def _arm(arm: str, verdicts: Sequence[bool | None], **tokens: int) -> list[Row]:
    return [_row(arm, question, correct, **tokens) for question, correct in enumerate(verdicts)]


def _rows() -> list[Row]:
    return [
        *_arm("teacher", [True, True, True, False], output=100, prompt=200, cached=100),
        *_arm("review", [True, True, True, False], output=20, prompt=200, cached=200),
        *_arm("fixed:40", [True, True, False, False], output=40, prompt=200, cached=100),
        *_arm("fixed:9", [False, True, False, False], output=9, prompt=200, cached=100),
        *_arm("off", [True, False, False, False]),
    ]


def test_arms_are_in_a_readers_order() -> None:
    assert list(by_task(_rows())["maths"]) == ["off", "fixed:9", "fixed:40", "review", "teacher"]


def test_what_an_arm_reached_and_took() -> None:
    (task,) = summarise(_rows(), PRICES)
    arm = task.arm("fixed:40")

    assert (arm.n, arm.accuracy, arm.errors, arm.fallbacks, arm.no_answer_share) == (4, 0.5, 0, 0, 0)
    assert arm.interval == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert (arm.teacher_output_tokens, arm.teacher_computed_tokens, arm.teacher_cached_tokens) == (40, 100, 100)
    assert arm.cost_usd == pytest.approx((100 * 1 + 100 * 0.1 + 40 * 4) / 1e6)
    assert arm.teacher_token_share == pytest.approx(0.4)
    assert arm.cost_share == pytest.approx(270 / 510)
    assert arm.recovery
    assert arm.recovery.value == pytest.approx(0.5)
    assert (arm.p50_s, arm.first_token_p50_s) == (2.5, 0.5)
    assert arm.p95_s == pytest.approx(3.85)
    assert (arm.bytes, arm.calls, arm.student_output_tokens) == (120, 1, 50)


def test_the_fronts_and_what_mixtures_of_plain_arms_reach() -> None:
    (task,) = summarise(_rows(), PRICES)

    assert task.front_by_cost == ("off", "review")
    assert task.front_by_tokens == ("off", "review")
    assert task.hull_by_cost == ("off", "teacher")  # fixed:40 recovers half of the gap at 53 % of the cost
    margin = task.margins_by_cost["review"]
    assert (margin.low, margin.high) == ("off", "teacher")
    assert margin.weight == pytest.approx(100 / 510)
    assert margin.value == pytest.approx(0.75 - (0.25 + 0.5 * 100 / 510))
    assert margin.interval.holds(margin.value)
    assert margin.verdict == "cannot be told"


def test_a_plain_arm_stands_against_a_policy_for_a_share_of_the_questions() -> None:
    (task,) = summarise(_rows(), PRICES)

    # `review` costs 100, `fixed:9` 146: there the policy can have all questions, and a third of them for a third of its tokens.
    assert set(task.margins_by_cost) == {"review", "fixed:9", "fixed:40", "teacher"}
    margin = task.margins_by_cost["fixed:9"]
    assert (margin.low, margin.high, margin.weight, margin.value) == ("review", "review", 1.0, -0.5)
    margin = task.margins_by_tokens["fixed:9"]
    assert (margin.low, margin.high) == ("off", "review")
    assert margin.weight == pytest.approx(9 / 20)
    assert margin.value == pytest.approx(0.25 - (0.25 + 0.5 * 9 / 20))
    assert task.margins_by_tokens["teacher"].value == 0


def test_without_policies_prefixes_stand_against_the_teacher_for_a_share_of_the_questions() -> None:
    (task,) = summarise([row for row in _rows() if row.arm != "review"], PRICES)

    assert set(task.margins_by_cost) == set(task.margins_by_tokens) == {"fixed:9", "fixed:40"}
    margin = task.margins_by_cost["fixed:9"]
    assert (margin.low, margin.high) == ("off", "teacher")
    assert margin.weight == pytest.approx(146 / 510)
    assert margin.value == pytest.approx(0.25 - (0.25 + 0.5 * 146 / 510))


def test_student_and_teacher_alone_have_nothing_to_stand_against() -> None:
    (task,) = summarise([row for row in _rows() if row.arm in {"off", "teacher"}], PRICES)
    assert not task.margins_by_cost
    assert not task.margins_by_tokens


def test_an_arm_below_the_mixtures_is_beaten() -> None:
    half = [True] * 50 + [False] * 50
    rows = [
        *_arm("off", [False] * 100),
        *_arm("teacher", [True] * 90 + [False] * 10, output=100),
        *_arm("poor", half[::-1], output=90),
    ]
    (task,) = summarise(rows, PRICES)
    assert task.margins_by_cost["poor"].verdict == "beaten"
    assert task.margins_by_tokens["poor"].value == pytest.approx(0.5 - 0.9 * 0.9)
    assert "poor" in task.front_by_cost  # no single arm beats it


def test_failed_and_unjudged_questions_are_counted_and_cost_no_share() -> None:
    failed = Row(task="maths", question_id="q3", arm="review", correct=None, error="503", fallback="unreachable")
    rows = [row for row in _rows() if (row.arm, row.question_id) != ("review", "q3")] + [failed]
    (task,) = summarise(rows, PRICES)
    arm = task.arm("review")

    assert (arm.questions, arm.n, arm.errors, arm.fallbacks, arm.accuracy) == (4, 3, 1, 1, 1.0)
    assert arm.teacher_output_tokens == 20
    assert arm.teacher_token_share == pytest.approx(0.2)
    said = " ".join(task.warnings)
    assert "review: no verdict on 1 of 4 questions; 1 failed" in said
    assert "review: fell back to the student on 1 of 4 questions" in said


def test_an_unreadable_answer_is_wrong_and_no_answer() -> None:
    rows = [*_arm("off", [True]), Row(task="maths", question_id="q1", arm="off", correct=False)]
    arm = summarise(rows, PRICES)[0].arm("off")
    assert (arm.n, arm.accuracy, arm.no_answer_share) == (2, 0.5, 0.5)


def test_without_references_shares_are_unknown_and_it_says_so() -> None:
    (task,) = summarise(_arm("fixed:40", [True, False], output=40), PRICES)
    arm = task.arm("fixed:40")
    assert (arm.teacher_token_share, arm.cost_share, arm.recovery) == (None, None, None)
    assert arm.cost_usd == pytest.approx(160e-6)
    assert "no arm off and teacher" in task.warnings[0]
    with pytest.raises(KeyError):
        task.arm("teacher")


def test_arms_of_other_questions_are_named() -> None:
    rows = [*_arm("off", [True, False, True]), *_arm("teacher", [True], output=9)]
    (task,) = summarise(rows, PRICES)
    assert any("teacher: has only 1 of 3 questions" in warning for warning in task.warnings)


def test_each_task_has_its_own_summary() -> None:
    other = Row(task="letters", question_id="q0", arm="off", correct=None)
    tasks = summarise([*_rows(), other], PRICES)
    assert [task.task for task in tasks] == ["maths", "letters"]
    arm = tasks[1].arm("off")
    assert (arm.n, arm.accuracy, arm.interval, arm.p50_s) == (0, None, None, None)
    assert tasks[1].front_by_cost == ()


def test_fixed_and_broken_questions() -> None:
    arms = by_task(_rows())["maths"]
    found = changes(arms, "off", "fixed:9")
    assert [change.a.question_id for change in found.fixed] == ["q1"]
    assert [change.b.question_id for change in found.broken] == ["q0"]


def test_the_best_policy_is_the_most_accurate_then_the_cheapest() -> None:
    rows = [
        *_rows(),
        *_arm("dear", [True, True, True, False], output=90),
        *_arm("poor", [True] + [False] * 3, output=1),
    ]
    assert best_policy(summarise(rows, PRICES)[0]) == "review"
    assert best_policy(summarise(_arm("off", [True]), PRICES)[0]) is None


def test_an_answer_is_cut_where_the_writer_changes() -> None:
    teacher, student = (
        Segment(source=Source.TEACHER, chars=3, tokens=1),
        Segment(source=Source.STUDENT, chars=4, tokens=2),
    )
    row = _row("review", 0, True).model_copy(update={"output": "éin zwei und", "segments": (teacher, student)})
    assert [tuple(piece) for piece in pieces(row)] == [
        (Source.TEACHER, "éin"),
        (Source.STUDENT, " zwe"),
        (None, "i und"),
    ]
