"""The report's tables, as text: the page and the Markdown file lay out the same cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary
from evaluation.lab.analysis.margins import Margin
from evaluation.lab.arm_names import is_plain
from evaluation.lab.report.formatting import (
    UNKNOWN,
    number,
    percent,
    percent_in,
    points_in,
    seconds,
    shown,
    usd_per_thousand,
)


class Column(NamedTuple):
    heading: str
    cell: Callable[[ArmSummary], str]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each begins with the arm's name. Names of arms are text of others, on one line."""
    note: str = ""


MIXTURES = (
    "A mixture gives each question to one of two arms by lot, and so reaches any price between theirs. An arm is beaten "
    "where the best mixture that costs no more is better, and better where it is worse, with 95 % confidence; paired, on the "
    "same questions."
)


def _recovered(arm: ArmSummary) -> str:
    return percent_in(arm.recovery.value, arm.recovery.interval) if arm.recovery else UNKNOWN


REACHED = (
    Column("accuracy [95 %]", lambda arm: percent_in(arm.accuracy, arm.interval)),
    Column("n", lambda arm: number(arm.n)),
    Column("gap recovered [95 %]", _recovered),
    Column("no answer", lambda arm: percent(arm.no_answer_share)),
    Column("failed", lambda arm: number(arm.errors)),
    Column("fell back", lambda arm: number(arm.fallbacks)),
)
TOOK = (
    Column("teacher tokens written", lambda arm: number(arm.teacher_output_tokens, 1)),
    Column("of teacher's", lambda arm: percent(arm.teacher_token_share)),
    Column("prompt computed", lambda arm: number(arm.teacher_computed_tokens, 1)),
    Column("prompt cached", lambda arm: number(arm.teacher_cached_tokens, 1)),
    Column("cost of 1,000", lambda arm: usd_per_thousand(arm.cost_usd)),
    Column("of teacher's cost", lambda arm: percent(arm.cost_share)),
    Column("student tokens written", lambda arm: number(arm.student_output_tokens, 1)),
    Column("calls", lambda arm: number(arm.calls, 1)),
    Column("bytes", lambda arm: number(arm.bytes)),
    Column("first token p50", lambda arm: seconds(arm.first_token_p50_s)),
    Column("p50", lambda arm: seconds(arm.p50_s)),
    Column("p95", lambda arm: seconds(arm.p95_s)),
)


def tables(task: TaskSummary) -> list[Table]:
    """What each arm reached, what it took, and how it stands against the plain method where there is another one."""
    made = [
        _table("What each arm reached", REACHED, task),
        _table("What it took, a question", TOOK, task),
    ]
    title = "Against the plain method: student, teacher, fixed prefixes and mixtures of them"
    made.extend(_against(title, task, plain=False))
    made.extend(_against("Plain arms against policies, or the teacher, for a share of the questions", task, plain=True))
    return made


def _table(title: str, columns: tuple[Column, ...], task: TaskSummary) -> Table:
    rows = tuple((shown(arm.arm), *(column.cell(arm) for column in columns)) for arm in task.arms)
    return Table(title, ("arm", *(column.heading for column in columns)), rows)


def _against(title: str, task: TaskSummary, *, plain: bool) -> list[Table]:
    """Of the arms that are plain, or of those that are not, where mixtures of the others cost as little."""
    rows = []
    for arm in task.arms:
        by_cost, by_tokens = task.margins_by_cost.get(arm.arm), task.margins_by_tokens.get(arm.arm)
        if is_plain(arm.arm) is plain and (by_cost or by_tokens):
            rows.append((shown(arm.arm), *_margin(by_cost), *_margin(by_tokens)))
    headings = ("arm", "same cost", "margin [95 %]", "", "same teacher tokens", "margin [95 %]", "")
    return [Table(title, headings, tuple(rows), MIXTURES)] if rows else []


def _margin(margin: Margin | None) -> tuple[str, str, str]:
    if not margin:
        return UNKNOWN, UNKNOWN, "cheaper than any"
    low, high = shown(margin.low), shown(margin.high)
    mixture = high
    if margin.weight < 1:
        mixture = f"{percent(1 - margin.weight)} {low}" + (
            f" + {percent(margin.weight)} {high}" if margin.weight else ""
        )
    return mixture, points_in(margin.value, margin.interval), margin.verdict
