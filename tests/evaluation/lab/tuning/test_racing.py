"""The tuner's decisions, on made-up rows."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.lab.arms import Arm, parse_all
from evaluation.lab.errors import BadArm
from evaluation.lab.results.rows import Arms, Row, SideTokens, verdicts
from evaluation.lab.tuning.racing import (
    best_effort,
    blocks,
    choose,
    race,
    retention,
    rollout_retention,
    valid_rows,
)
from evaluation.lab.tuning.tuner import check_arms, default_grid


def outcomes(reach: Mapping[str, tuple[float, int]], questions: int = 200, *, seed: int = 1) -> Arms:
    """Make rows: an arm is right on questions that are easier than its accuracy, and uses this many teacher tokens."""
    chance = random.Random(seed)
    hardness = [chance.random() for _ in range(questions)]
    rows = [
        Row(
            task="made-up",
            question_id=str(at),
            arm=arm,
            correct=hard < accuracy,
            teacher=SideTokens(output=max(0, tokens + (chance.randint(-3, 3) if tokens else 0))),
        )
        for arm, (accuracy, tokens) in reach.items()
        for at, hard in enumerate(hardness)
    ]
    return valid_rows(rows)


def tokens(row: Row) -> float:
    return row.teacher.output


REACH = {
    "off": (0.2, 0),
    "fixed:10": (0.25, 10),
    "fixed:80": (0.45, 80),
    "review": (0.6, 30),
    "late": (0.6, 90),
    "teacher": (0.6, 100),
}


def test_hopeless_and_dear_arms_leave_and_the_best_stays() -> None:
    arms = outcomes(REACH)
    dropped = race(arms, list(REACH), 0.95, tokens, stages=3)
    assert dropped["fixed:10"].startswith("keeps ")
    assert dropped["fixed:80"].startswith("keeps ")
    assert dropped["late"] == "review keeps enough for less"
    assert "review" not in dropped
    assert dropped.keys().isdisjoint({"off", "teacher"})
    choice = choose(arms, ["review", "late"], 0.95, tokens)
    assert choice and (choice.arm, choice.shown) == ("review", True)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    questions=st.integers(20, 300),
    teacher=st.floats(0.3, 0.95),
    others=st.lists(st.tuples(st.floats(0, 0.6), st.integers(20, 95)), max_size=4),
)
def test_an_arm_that_is_best_by_far_is_never_dropped(
    seed: int, questions: int, teacher: float, others: list[tuple[float, int]]
) -> None:
    """One arm equals the teacher for a tenth of its tokens; the others have at most three fifths of its accuracy, for more."""
    reach = {"off": (0.1 * teacher, 0), "teacher": (teacher, 100), "best": (teacher, 10)}
    reach |= {f"arm-{at}": (share * teacher, cost) for at, (share, cost) in enumerate(others)}
    arms = outcomes(reach, questions, seed=seed)
    assert "best" not in race(arms, list(reach), 0.95, tokens, stages=4)
    choice = choose(arms, list(reach), 0.95, tokens)
    assert choice is None or choice.arm == "best"
    assert choice or not any(row.correct for row in arms["teacher"].values())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), questions=st.integers(100, 300))
def test_hopeless_arms_are_dropped(seed: int, questions: int) -> None:
    arms = outcomes({"off": (0.1, 0), "poor": (0.2, 50), "teacher": (0.7, 100)}, questions, seed=seed)
    assert list(race(arms, ["poor"], 0.95, tokens, stages=4)) == ["poor"]


def test_an_arm_that_another_beats_in_both_is_dropped_though_neither_is_near() -> None:
    arms = outcomes({"off": (0.1, 0), "low": (0.55, 60), "high": (0.75, 20), "teacher": (0.8, 100)}, 300)
    assert race(arms, ["low", "high"], 0.6, tokens, stages=1)["low"] in {
        "high is better for less",
        "high keeps enough for less",
    }
    assert race(arms, ["low", "high"], 0.93, tokens, stages=1).keys() == {"low"}


def test_an_arm_that_costs_more_than_the_teacher_is_dropped_and_never_chosen() -> None:
    arms = outcomes({"off": (0.1, 0), "dear": (0.8, 150), "teacher": (0.8, 100)})
    assert race(arms, ["dear"], 0.95, tokens, stages=1) == {"dear": "costs more than the teacher"}
    assert choose(arms, ["dear"], 0.95, tokens) is None


def test_few_questions_prove_nothing() -> None:
    arms = outcomes({"off": (0.0, 0), "same": (0.9, 10), "teacher": (0.9, 100)}, 10)
    assert race(arms, ["same"], 0.95, tokens, stages=1) == {}
    choice = choose(arms, ["same"], 0.95, tokens)
    assert choice and not choice.shown and choice.retention.value == 1 and choice.retention.low < 0.95


def test_a_cheaper_estimate_does_not_win_over_a_shown_arm() -> None:
    arms = outcomes({"off": (0, 0), "cheap": (0.485, 5), "shown": (0.5, 50), "teacher": (0.5, 100)}, 400)
    kept = retention(*[[row.correct for row in arms[arm].values()] for arm in ("cheap", "teacher")])
    assert kept and kept.value > 0.95 > kept.low
    choice = choose(arms, ["cheap", "shown"], 0.95, tokens)
    assert choice and choice.arm == "shown"
    assert choose(arms, ["cheap"], 0.95, tokens) is not None


def test_where_nothing_reaches_it_the_nearest_is_named() -> None:
    arms = outcomes(REACH)
    assert choose(arms, ["fixed:10", "fixed:80"], 0.95, tokens) is None
    close = best_effort(arms, ["fixed:10", "fixed:80"], 0.95, tokens)
    assert close and close.arm == "fixed:80"


def test_a_student_that_keeps_enough_alone_is_the_choice() -> None:
    arms = outcomes({"off": (0.8, 0), "fixed:10": (0.8, 10), "teacher": (0.8, 100)})
    choice = choose(arms, ["fixed:10"], 0.95, tokens)
    assert choice and (choice.arm, choice.cost) == ("off", 0)


def test_arms_may_be_for_a_share_of_the_questions() -> None:
    arms = outcomes(REACH, 400)
    running = ["fixed:10", "review", "teacher"]
    whole = choose(arms, running, 0.6, tokens)
    part = choose(arms, running, 0.6, tokens, rollout=running)
    assert whole and (whole.arm, whole.rollout_fraction) == ("review", 1)
    assert part and part.arm == "review"
    # The student alone has a third of the accuracy: two fifths of the rest are needed, and a little more to be confident.
    assert 0.4 < part.rollout_fraction < 0.6
    assert part.cost == pytest.approx(part.rollout_fraction * whole.cost)
    assert part.shown
    less = rollout_retention(arms, "review", part.rollout_fraction - 0.05)
    assert less and less.low < 0.6 <= part.retention.low

    teacher = choose(arms, ["fixed:10", "teacher"], 0.6, tokens, rollout=["fixed:10", "teacher"])
    assert teacher and (teacher.arm, teacher.rollout_fraction) == ("teacher", part.rollout_fraction)


def test_a_share_of_few_questions_is_an_estimate() -> None:
    arms = outcomes({"off": (0.2, 0), "teacher": (0.6, 100)}, 10)
    few = choose(arms, ["off", "teacher"], 0.8, tokens, rollout=["teacher"])
    assert few and not few.shown
    assert few.retention.value >= 0.8


def test_all_questions_by_lot_are_all_questions() -> None:
    arms = outcomes(REACH)
    for arm in ("off", "fixed:80", "review"):
        assert rollout_retention(arms, arm, 1) == retention(*verdicts(arms, arm, "teacher"))
    assert rollout_retention(arms, "off", 0.5) == rollout_retention(arms, "off", 1), "the student for the student"


def test_the_share_kept_and_its_bounds() -> None:
    assert retention([], []) is None
    assert retention([True, False], [False, False]) is None
    few = retention([True] * 9 + [False], [True] * 10)
    many = retention([True] * 900 + [False] * 100, [True] * 1000)
    assert few and many
    assert few.value == many.value == 0.9
    assert few.low < many.low < 0.9 < many.high <= few.high
    assert many.low > 0.87 and many.high < 0.93
    one = retention([True, False], [True, None])
    assert one and one.n == 1 and one.high == math.inf


def test_rows_without_a_verdict_of_their_arm_do_not_count() -> None:
    row = Row(task="t", question_id="1", arm="a", correct=True)
    others: list[dict[str, Any]] = [{"error": "503"}, {"fallback": "stalled"}, {"correct": None}]
    rows = [row, *(row.model_copy(update={"question_id": str(at), **other}) for at, other in enumerate(others, 2))]
    assert valid_rows(rows) == {"a": {"1": row}}


@pytest.mark.parametrize(
    ("questions", "first", "ends"),
    [
        (500, 50, [50, 100, 200, 400, 500]),
        (450, 50, [50, 100, 200, 450]),
        (30, 50, [30]),
        (60, 50, [60]),
        (1, 1, [1]),
        (0, 5, []),
    ],
)
def test_blocks(questions: int, first: int, ends: list[int]) -> None:
    cut = blocks(questions, first)
    assert [block.stop for block in cut] == ends
    assert [at for block in cut for at in block] == list(range(questions))


def test_the_default_grid_is_of_arms_that_a_policy_file_can_say() -> None:
    arms = parse_all(default_grid(300))
    check_arms(arms)
    assert len(arms) == 4 + 2 + 3 + 3 + 3 * 3
    assert arms[-1].values == {
        "acceptance_threshold": 0.5,
        "max_correction_tokens": 0,
        "handback_after": 3,
        "confidence_threshold": 0.1,
        "max_guidance_tokens": 300,
    }
    for text in ("random:10-80", "route:confidence_threshold=0.9", "cascade:confidence_threshold=0.9"):
        with pytest.raises(BadArm, match="no policy file can express it"):
            check_arms([Arm.parse(text)])
