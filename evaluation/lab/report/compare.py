"""`gkt eval compare`: two arms on the same questions, and whether the data can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary, summarise
from evaluation.lab.analysis.disagreements import Change, changes
from evaluation.lab.analysis.price_table import PriceTable
from evaluation.lab.analysis.statistics import difference
from evaluation.lab.report.cli import gather, known_arms
from evaluation.lab.report.formatting import (
    UNKNOWN,
    number,
    p_value,
    percent,
    percent_in,
    points_in,
    seconds,
    shown,
    usd_per_thousand,
)
from evaluation.lab.results.rows import verdicts
from evaluation.lab.terminal import stdout
from shared.errors import ConfigurationError

IDS = 40
"""Questions that are named, fixed and broken each."""


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", exists=True, file_okay=False, help="Runs of `gkt eval run`.")
    ],
    a: Annotated[str, typer.Argument(metavar="A", help="An arm.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The arm that it is compared with.")],
    *,
    task: Annotated[str | None, typer.Option(help="Compare on this task; on each where unset.")] = None,
    prices: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Prices by model, TOML; gkt's own where unset.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The teacher, by whose prices costs are reckoned.")] = None,
) -> None:
    """Compare two arms on the questions both have answered: the difference with its interval, McNemar's exact test, cost.

    Says where the data cannot tell them apart, and how many questions it would take. Ends with 0 either way.

    Example: gkt eval compare runs/gsm8k fixed:40 review --task gsm8k
    """
    rows = gather(folders).rows
    if task is not None and all(row.task != task for row in rows):
        there = ", ".join(dict.fromkeys(row.task for row in rows)) or "none"
        raise ConfigurationError(f"there is no task {task!r} in these runs; there are {there}")
    tasks = summarise([row for row in rows if task in {None, row.task}], PriceTable.load(prices).of(model))
    known_arms(tasks, [a, b])
    console = stdout()
    for summary in tasks:
        if {a, b} <= summary.rows.keys():
            _show(summary, a, b, console)
        else:
            console.print(escape(f"{shown(summary.task)}: not under both arms"), style="yellow", soft_wrap=True)


def _show(task: TaskSummary, a: str, b: str, console: Console) -> None:
    told = difference(*verdicts(task.rows, a, b))
    under_a, under_b = task.arm(a), task.arm(b)
    table = Table(escape(shown(task.task)), box=None, header_style="bold", pad_edge=False)
    for name in (a, b):
        table.add_column(escape(shown(name)), justify="right", overflow="fold")
    table.add_row("accuracy [95 %]", *(percent_in(arm.accuracy, arm.interval) for arm in (under_a, under_b)))
    table.add_row("on the same questions", percent(told.accuracy_a), percent(told.accuracy_b))
    for heading, values in _took(under_a, under_b):
        table.add_row(heading, *values)
    console.print(table)
    console.print(
        f"{escape(shown(b))} less {escape(shown(a))}: {points_in(told.difference, told.interval)}, "
        f"McNemar's exact {p_value(told.p)}, n = {told.n:,}; questions needed to tell this difference: "
        f"{UNKNOWN if told.needed is None else f'about {told.needed:,}'}",
        soft_wrap=True,
        highlight=False,
    )
    found = changes(task.rows, a, b)
    console.print(_listed("fixed", found.fixed), soft_wrap=True, highlight=False)
    console.print(_listed("broken", found.broken), soft_wrap=True, highlight=False)
    for warning in told.warnings:
        console.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True, highlight=False)


def _took(a: ArmSummary, b: ArmSummary) -> list[tuple[str, tuple[str, str]]]:
    return [
        ("no answer", (percent(a.no_answer_share), percent(b.no_answer_share))),
        ("cost of 1,000 questions", (usd_per_thousand(a.cost_usd), usd_per_thousand(b.cost_usd))),
        ("of the teacher's cost", (percent(a.cost_share), percent(b.cost_share))),
        ("teacher tokens written", (number(a.teacher_output_tokens, 1), number(b.teacher_output_tokens, 1))),
        ("prompt computed", (number(a.teacher_computed_tokens, 1), number(b.teacher_computed_tokens, 1))),
        ("prompt cached", (number(a.teacher_cached_tokens, 1), number(b.teacher_cached_tokens, 1))),
        ("time, median", (seconds(a.p50_s), seconds(b.p50_s))),
    ]


def _listed(what: str, found: Sequence[Change]) -> str:
    ids = ", ".join(shown(change.a.question_id) for change in found[:IDS])
    more = f" and {len(found) - IDS} more" if len(found) > IDS else ""
    return f"[bold]{what}[/bold] ({len(found)}): {escape(ids) or UNKNOWN}{more}"
