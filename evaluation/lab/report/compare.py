"""`gkt eval compare`: two arms on the same questions, and whether the data can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.lab import options
from evaluation.lab.analysis.arm_summary import TaskSummary, summarise
from evaluation.lab.analysis.disagreements import Change, changes
from evaluation.lab.analysis.price_table import load_prices, prices_of
from evaluation.lab.analysis.statistics import difference
from evaluation.lab.report.cli import check_arms, gather
from evaluation.lab.report.formatting import UNKNOWN, p_value, percent, points_in, shown
from evaluation.lab.report.tables import REACHED, TOOK
from evaluation.lab.results.rows import verdicts
from evaluation.lab.terminal import stdout
from shared.errors import ConfigurationError

IDS = 40
"""Number of questions that are named, of fixed and of broken ones."""


def compare(
    folders: options.RunFolders,
    a: Annotated[str, typer.Argument(metavar="A", help="An arm.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The arm to compare it with.")],
    *,
    task: Annotated[str | None, typer.Option(help="Task to compare them on. If unset, each task.")] = None,
    prices: options.PricesFile = None,
    model: options.TeacherModel = None,
) -> None:
    """Compare two arms on the questions both have answered: the difference with its interval, McNemar's exact test, cost.

    Reports if the data cannot tell them apart, and how many questions would be needed. Exits with 0 either way.

    Example: gkt eval compare runs/gsm8k fixed:40 review --task gsm8k
    """
    rows = gather(folders).rows
    known = list(dict.fromkeys(row.task for row in rows))
    if task is not None and task not in known:
        raise ConfigurationError(f"these runs have no task {task!r}; their tasks are {', '.join(known) or 'none'}")
    tasks = summarise([row for row in rows if task in {None, row.task}], prices_of(load_prices(prices), model))
    check_arms(tasks, [a, b])
    console = stdout()
    for summary in tasks:
        if {a, b} <= summary.rows.keys():
            _show(summary, a, b, console)
        else:
            console.print(escape(f"{shown(summary.task)}: has not both arms"), style="yellow", soft_wrap=True)


def _show(task: TaskSummary, a: str, b: str, console: Console) -> None:
    test = difference(*verdicts(task.rows, a, b))
    table = Table(escape(shown(task.task)), box=None, header_style="bold", pad_edge=False)
    for name in (a, b):
        table.add_column(escape(shown(name)), justify="right", overflow="fold")
    for column in (*REACHED, *TOOK):
        table.add_row(column.heading, *(column.cell(task.arm(name)) for name in (a, b)))
    table.add_row("accuracy on the same questions", percent(test.accuracy_a), percent(test.accuracy_b))
    console.print(table)
    result = (
        f"{shown(b)} less {shown(a)}: {points_in(test.difference, test.interval)}, McNemar's exact {p_value(test.p)}"
    )
    needed = UNKNOWN if test.needed is None else f"about {test.needed:,}"
    found = changes(task.rows, a, b)
    for line in (
        f"{escape(result)}, n = {test.n:,}; questions needed to tell this difference: {needed}",
        _listed("fixed", found.fixed),
        _listed("broken", found.broken),
        *(f"[yellow]{escape(warning)}[/yellow]" for warning in test.warnings),
    ):
        console.print(line, soft_wrap=True, highlight=False)


def _listed(kind: str, found: Sequence[Change]) -> str:
    ids = ", ".join(shown(change.a.question_id) for change in found[:IDS])
    more = f" and {len(found) - IDS} more" if len(found) > IDS else ""
    return f"[bold]{kind}[/bold] ({len(found)}): {escape(ids) or UNKNOWN}{more}"
