"""The report as one HTML file: no scripts, nothing loaded from elsewhere, readable in print.

Whatever models, tasks and users wrote is escaped: by the template for HTML, by `evaluation.lab.report.svg` in pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary
from evaluation.lab.analysis.disagreements import Change, best_policy, changes, pieces
from evaluation.lab.analysis.statistics import difference
from evaluation.lab.arm_names import OFF
from evaluation.lab.report import charts, svg
from evaluation.lab.report.formatting import p_value, points_in, shortened, shown
from evaluation.lab.report.tables import tables
from evaluation.lab.results.rows import Row, verdicts

STRIPS = 4
"""Questions whose answers are drawn."""
ITEMS = 100
"""Fixed and broken questions that are shown, of each."""


class Between(NamedTuple):
    """The arms whose questions are shown one by one."""

    a: str
    b: str


def page(
    tasks: Sequence[TaskSummary],
    *,
    title: str,
    about: str,
    warnings: Sequence[str] = (),
    between: Between | None = None,
) -> str:
    """The whole file. Without `between`, the student alone is compared with the best arm that is not plain."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        about=about,
        warnings=warnings,
        glyphs=_glyphs(),
        tasks=[_task(at, task, between) for at, task in enumerate(tasks)],
    )


def _task(at: int, task: TaskSummary, between: Between | None) -> dict[str, Any]:
    return {
        "name": shown(task.task),
        "warnings": [shown(warning) for warning in task.warnings],
        "tables": [
            {"title": table.title, "headings": table.headings, "rows": table.rows, "note": table.note}
            for table in tables(task)
        ],
        "charts": list(_charts(task)),
        "strips": list(_strips(at, task)),
        "changed": _changed(task, between),
    }


def _charts(task: TaskSummary) -> Iterator[dict[str, Any]]:
    shares = any(arm.cost_share is not None for arm in task.arms)

    def cost(arm: ArmSummary) -> float | None:
        if shares:
            return None if arm.cost_share is None else 100 * arm.cost_share
        return None if arm.cost_usd is None else 1000 * arm.cost_usd

    drawn = [
        (
            "Accuracy against cost",
            (
                "Bars are 95 % intervals. The grey line joins the arms that none beats at their cost, the dashed one the best "
                "that mixtures of student, teacher and fixed prefixes can do."
            ),
            charts.accuracy_against(
                task,
                cost,
                task.front_by_cost,
                task.hull_by_cost,
                title="% of the teacher's cost" if shares else "US dollars for 1,000 questions",
            ),
            task.front_by_cost,
        ),
        (
            "Accuracy against the teacher's words",
            "The same against output tokens of the teacher a question.",
            charts.accuracy_against(
                task,
                lambda arm: arm.teacher_output_tokens,
                task.front_by_tokens,
                (),
                title="tokens written by the teacher",
            ),
            task.front_by_tokens,
        ),
        (
            "Accuracy against guidance length",
            "Prefixes of fixed length; the dotted lines, in their grey intervals, are student and teacher alone.",
            charts.accuracy_by_length(task),
            None,
        ),
        (
            "Latency",
            "Triangle: median until the first token. Mark: median until the end. Line: up to the 95th percentile.",
            charts.latency(task),
            None,
        ),
    ]
    for title, caption, picture, front in drawn:
        numbers = charts.numbered(task, front) if front is not None else {}
        if numbers:
            caption += " " + ", ".join(f"{number}: {shown(arm)}" for arm, number in numbers.items()) + "."
        if picture:
            yield {"title": title, "caption": caption, "svg": Markup(picture.render())}  # noqa: S704 - text in it is escaped


def _strips(at: int, task: TaskSummary) -> Iterator[dict[str, Any]]:
    """Of questions spread over the task, those that most arms have answered first."""
    questions = list(dict.fromkeys(question for rows in task.rows.values() for question in rows))
    answered = {
        question: {arm: rows[question] for arm, rows in task.rows.items() if question in rows and rows[question].output}
        for question in questions
    }
    most = max((len(rows) for rows in answered.values()), default=0)
    full = [question for question in questions if most and len(answered[question]) == most]
    step = max(1, len(full) // STRIPS)
    for number, question in enumerate(full[::step][:STRIPS]):
        rows = answered[question]
        picture = charts.strips(rows, f"teacher-{at}-{number}")
        yield {
            "title": shortened(question, 40),
            "caption": shortened(next(iter(rows.values())).question, 90),
            "svg": Markup(picture.render()),  # noqa: S704 - text in it is escaped
        }


def _changed(task: TaskSummary, between: Between | None) -> dict[str, Any] | None:
    a, b = between or (OFF, best_policy(task) or next((arm.arm for arm in reversed(task.arms) if arm.arm != OFF), OFF))
    if a == b or a not in task.rows or b not in task.rows:
        return None
    found = changes(task.rows, a, b)
    told = difference(*verdicts(task.rows, a, b))
    words = (
        f"{shown(b)} less {shown(a)}: {points_in(told.difference, told.interval)}, McNemar's exact {p_value(told.p)}"
    )
    return {
        "a": shown(a),
        "b": shown(b),
        "chosen": between is None,
        "words": ". ".join([f"{words}, n = {told.n}", *told.warnings]) + ".",
        "groups": [
            _group(f"Fixed: only {shown(b)} is right ({len(found.fixed)})", found.fixed),
            _group(f"Broken: only {shown(a)} is right ({len(found.broken)})", found.broken),
        ],
    }


def _group(title: str, found: Sequence[Change]) -> dict[str, Any]:
    items = [
        {
            "summary": f"{shortened(change.a.question_id, 40)}: {shortened(change.a.question, 100)}",
            "question_id": shown(change.a.question_id),
            "question": change.a.question,
            "answers": [_answer(row) for row in change],
        }
        for change in found[:ITEMS]
    ]
    return {"title": title, "changes": items, "left": max(0, len(found) - ITEMS)}


def _answer(row: Row) -> dict[str, Any]:
    said = "no answer" if row.extracted is None else shortened(row.extracted, 120)
    wanted = "" if row.target is None else f", wanted {shortened(row.target, 120)}"
    notes = [f"fell back: {row.fallback}" if row.fallback else "", f"error: {row.error}" if row.error else ""]
    return {
        "arm": shown(row.arm),
        "extracted": f"{'right' if row.correct else 'wrong'}, {said}{wanted}",
        "pieces": pieces(row),
        "note": shown("; ".join(note for note in notes if note)),
    }


def _glyphs() -> dict[str, Markup]:
    def key(fill: str, before: str = "") -> Markup:
        picture = svg.Picture(28, 12, "")
        picture.raw(before)
        picture.box(0, 0, 28, 12, fill=fill)
        return Markup(picture.render(css_class="key"))  # noqa: S704 - of our own

    return {
        "reference": Markup(charts.glyph(charts.REFERENCE)),  # noqa: S704
        "prefix": Markup(charts.glyph(charts.PREFIX)),  # noqa: S704
        "policy": Markup(charts.glyph(charts.POLICY)),  # noqa: S704
        "teacher": key("url(#teacher-key)", charts.hatching("teacher-key")),
        "student": key(svg.SKY),
    }
