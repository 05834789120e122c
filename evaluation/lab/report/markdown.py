"""The report's tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from evaluation.lab.analysis.arm_summary import TaskSummary
from evaluation.lab.report.formatting import shown
from evaluation.lab.report.tables import Table, tables

_SPEAKS = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def markdown(tasks: Sequence[TaskSummary], *, title: str, about: str, warnings: Sequence[str] = ()) -> str:
    """The whole file. Names that others gave cannot speak Markdown or HTML."""
    lines = [f"# {escaped(title)}", "", escaped(about), "", *_listed(warnings)]
    for task in tasks:
        lines += [f"## {escaped(task.task)}", "", *_listed(task.warnings)]
        for table in tables(task):
            lines += [f"### {escaped(table.title)}", "", *_laid_out(table), ""]
            if table.note:
                lines += [escaped(table.note), ""]
        lines += [
            f"Arms that no other beats at their cost: {_named(task.front_by_cost)}.",
            f"And at their tokens of the teacher: {_named(task.front_by_tokens)}.",
            "",
        ]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text of others, on one line, that Markdown and HTML leave as it is."""
    return _SPEAKS.sub(r"\\\1", shown(text)).replace("\\<", "&lt;").replace("\\&", "&amp;")


def _named(arms: Iterable[str]) -> str:
    return ", ".join(escaped(arm) for arm in arms) or "–"


def _laid_out(table: Table) -> list[str]:
    rows = [table.headings, *table.rows]
    head, *body = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows]
    return [head, "|---|" + "---:|" * (len(table.headings) - 1), *body]


def _listed(warnings: Iterable[str]) -> list[str]:
    lines = [f"- {escaped(warning)}" for warning in warnings]
    return [*lines, ""] if lines else []
