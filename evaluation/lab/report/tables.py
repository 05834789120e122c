"""The report's tables, as text: the page, the Markdown file and the terminal show the same cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """A table. Each row begins with the name of its arm, which is a user's text, on one line."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


MIXTURES = (
    "A mixture assigns each question to one of two arms at random, and so reaches any price between theirs. An arm is beaten "
    "if the best mixture that costs no more is better, and better if that is worse, with 95 % confidence; paired, on the same "
    "questions."
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
    """Return the tables of a task: accuracy, cost, and the comparison of plain arms with policies if there are any."""
    against_plain = "Against the plain method: student, teacher, fixed prefixes and mixtures of them"
    against_policies = "Plain arms against policies, or the teacher, for a fraction of the questions"
    return [
        _table("What each arm reached", REACHED, task),
        _table("What it took, a question", TOOK, task),
        *_margins(against_plain, task, plain=False),
        *_margins(against_policies, task, plain=True),
    ]


def _table(title: str, columns: tuple[Column, ...], task: TaskSummary) -> Table:
    rows = tuple((shown(arm.arm), *(column.cell(arm) for column in columns)) for arm in task.arms)
    return Table(title, ("arm", *(column.heading for column in columns)), rows)


def _margins(title: str, task: TaskSummary, *, plain: bool) -> Iterator[Table]:
    """Yield a table of the arms that are plain, or of those that are not, if mixtures of the others cost no more."""
    rows = []
    for arm in task.arms:
        by_cost, by_tokens = task.margins_by_cost.get(arm.arm), task.margins_by_tokens.get(arm.arm)
        if is_plain(arm.arm) is plain and (by_cost or by_tokens):
            rows.append((shown(arm.arm), *_margin(by_cost), *_margin(by_tokens)))
    headings = ("arm", "same cost", "margin [95 %]", "", "same teacher tokens", "margin [95 %]", "")
    if rows:
        yield Table(title, headings, tuple(rows), MIXTURES)


def _margin(margin: Margin | None) -> tuple[str, str, str]:
    if not margin:
        return UNKNOWN, UNKNOWN, "cheaper than any"
    shares = {margin.low: 1 - margin.weight, margin.high: margin.weight}
    mixture = " + ".join(f"{percent(share)} {shown(arm)}" for arm, share in shares.items() if share)
    if margin.weight == 1:
        mixture = shown(margin.high)
    return mixture, points_in(margin.value, margin.interval), margin.verdict
