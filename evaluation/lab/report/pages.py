"""The report as one HTML file and as Markdown. The HTML file holds no scripts, loads nothing, and is readable in print.

The templates escape all text that models, tasks and users wrote; `charts` escapes the text in its pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.lab.analysis.arm_summary import TaskSummary
from evaluation.lab.analysis.disagreements import Change, best_policy, changes, pieces
from evaluation.lab.analysis.statistics import difference
from evaluation.lab.arm_names import OFF
from evaluation.lab.report.formatting import markdown_text, p_value, points_in, shortened, shown
from evaluation.lab.report.tables import tables
from evaluation.lab.results.rows import Row, verdicts

STRIPS = 4
"""Number of questions whose answers are drawn."""
SHOWN_CHANGES = 100
"""Number of questions that are shown of those that only one of the two arms has right, for each of the arms."""


class Strip(NamedTuple):
    """A question's answers by arm, to be drawn as bars of their sources. `longest` is the longest answer's characters."""

    question_id: str
    question: str
    longest: int
    rows: dict[str, Row]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arms, question by question. `chosen` is True if the report chose B, because it came out best."""

    a: str
    b: str
    chosen: bool
    result: str
    groups: tuple[tuple[str, Sequence[Change]], ...]


def page(
    tasks: Sequence[TaskSummary],
    *,
    title: str,
    about: str,
    warnings: Sequence[str] = (),
    between: tuple[str, str] | None = None,
) -> str:
    """Return the HTML file, with the questions on which the arms of `between` differ.

    Without it the student alone is compared with the best arm that is not plain.
    """
    # Only here: importing matplotlib takes almost a second, which the other commands need not wait for.
    from evaluation.lab.report.charts import charts

    sections = [
        {
            "summary": task,
            "tables": tables(task),
            "charts": charts(task),
            "strips": list(strips(task)),
            "comparison": _comparison(task, between),
        }
        for task in tasks
    ]
    return _rendered("page.html.j2", tasks=sections, title=title, about=about, warnings=warnings)


def markdown(tasks: Sequence[TaskSummary], *, title: str, about: str, warnings: Sequence[str] = ()) -> str:
    """Return the tables as a Markdown file. Names that others gave cannot be Markdown or HTML in it."""
    sections = [{"summary": task, "tables": tables(task)} for task in tasks]
    return _rendered("report.md.j2", tasks=sections, title=title, about=about, warnings=warnings)


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "shortened": shortened, "pieces": pieces, "md": markdown_text}
    return environment.get_template(template).render(**values, shown_changes=SHOWN_CHANGES)


def strips(task: TaskSummary) -> Iterator[Strip]:
    """Yield questions spread over the task, of those that most arms have answered."""
    answered: dict[str, dict[str, Row]] = {}
    for arm, rows in task.rows.items():
        for question, row in rows.items():
            if row.output:
                answered.setdefault(question, {})[arm] = row
    most = max(map(len, answered.values()), default=0)
    full = [question for question, rows in answered.items() if len(rows) == most]
    for question in full[:: max(1, len(full) // STRIPS)][:STRIPS]:
        rows = answered[question]
        text = next(iter(rows.values())).question
        yield Strip(question, text, max(len(row.output) for row in rows.values()), rows)


def _comparison(task: TaskSummary, between: tuple[str, str] | None) -> Comparison | None:
    last = next((arm.arm for arm in reversed(task.arms) if arm.arm != OFF), OFF)
    a, b = between or (OFF, best_policy(task) or last)
    if a == b or not {a, b} <= task.rows.keys():
        return None
    found = changes(task.rows, a, b)
    test = difference(*verdicts(task.rows, a, b))
    result = (
        f"{b} less {a}: {points_in(test.difference, test.interval)}, McNemar's exact {p_value(test.p)}, n = {test.n}"
    )
    return Comparison(
        a,
        b,
        chosen=between is None,
        result=". ".join([result, *test.warnings]) + ".",
        groups=(
            (f"Fixed: only {b} is right ({len(found.fixed)})", found.fixed),
            (f"Broken: only {a} is right ({len(found.broken)})", found.broken),
        ),
    )
