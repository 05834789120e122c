"""`gkt eval report`: what the runs say, as one HTML file, as Markdown, and as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary, summarise
from evaluation.lab.analysis.price_table import PriceTable
from evaluation.lab.arm_names import TEACHER
from evaluation.lab.report.markdown import markdown
from evaluation.lab.results.folder import rows_in
from evaluation.lab.results.rows import Row
from evaluation.lab.terminal import stdout
from shared.errors import ConfigurationError
from shared.prices import Prices


@dataclass(frozen=True, slots=True)
class Gathered:
    """The rows of several runs."""

    rows: tuple[Row, ...]
    replaced: int
    """Rows of a question and arm that a later folder has too; the later one counts."""


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", exists=True, file_okay=False, help="Runs of `gkt eval run`.")
    ],
    *,
    html: Annotated[Path | None, typer.Option("--html", dir_okay=False, help="Write one self-contained page.")] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", dir_okay=False, help="Write the tables as Markdown.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write {task: {arm: {name: value}}}.")
    ] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Show the questions on which these arms differ; off and the best where unset."
        ),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Prices by model, TOML; gkt's own where unset.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The teacher, by whose prices costs are reckoned.")] = None,
) -> None:
    """Say what the runs have shown: accuracy with intervals, cost, tokens and latency of every arm, by task.

    The arms `off` and `teacher` are what the others are measured by. Of a question that two folders have under one arm the later
    folder's row counts.

    Example: gkt eval report runs/gsm8k --html report.html --json report.json
    """
    if not (html or markdown_file or json_file):
        raise typer.BadParameter("there is nothing to write: give --html, --markdown or --json")
    gathered = gather(folders)
    by = PriceTable.load(prices).of(model)
    tasks = summarise(gathered.rows, by)
    if between:
        known_arms(tasks, between)
    title = "How much guidance is worth: " + (", ".join(task.task for task in tasks) or "no rows")
    said = about(folders, by, model)
    warnings = _warnings(gathered)
    files: list[tuple[Path | None, str]] = []
    if html:
        # Only here: importing matplotlib takes almost a second, which the other commands need not wait for.
        from evaluation.lab.report.html import page

        files.append((html, page(tasks, title=title, about=said, warnings=warnings, between=between)))
    if markdown_file:
        files.append((markdown_file, markdown(tasks, title=title, about=said, warnings=warnings)))
    if json_file:
        files.append((json_file, json.dumps(data(tasks), indent=2, allow_nan=False) + "\n"))
    console = stdout()
    for path, text in files:
        if path:
            _write(path, text)
            console.print(f"wrote {escape(str(path))}", soft_wrap=True, highlight=False)


def gather(folders: Sequence[Path]) -> Gathered:
    """The rows of all folders. Raises BadFolder where one has none, or a line that is no row."""
    rows: dict[tuple[str, str, str], Row] = {}
    count = 0
    for folder in folders:
        for row in rows_in(folder):
            count += 1
            rows[row.task, row.question_id, row.arm] = row
    return Gathered(tuple(rows.values()), count - len(rows))


def known_arms(tasks: Sequence[TaskSummary], names: Sequence[str]) -> None:
    """Raises ConfigurationError, which lists the arms there are, where one of the names is of none."""
    there = list(dict.fromkeys(arm.arm for task in tasks for arm in task.arms))
    for name in names:
        if name not in there:
            raise ConfigurationError(f"there is no arm {name!r} in these runs; there are {', '.join(there) or 'none'}")


def about(folders: Sequence[Path], prices: Prices, model: str | None) -> str:
    """Where the figures are from."""
    return (
        f"From {', '.join(str(folder) for folder in folders)}. Prices of {model or 'a default teacher'}, in US dollars per "
        f"million tokens: {prices.input_usd:g} input, {prices.cached_input_usd:g} cached input, {prices.output_usd:g} output. "
        "Intervals are of 95\N{NO-BREAK SPACE}%: Wilson's for accuracies, a paired bootstrap for differences and for "
        "shares of the gap."
    )


def data(tasks: Sequence[TaskSummary]) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and arm. What is unknown is null."""
    return {task.task: {arm.arm: _values(task, arm) for arm in task.arms} for task in tasks}


def _values(task: TaskSummary, arm: ArmSummary) -> dict[str, Any]:
    recovered = arm.recovery.interval if arm.recovery else None
    margin = task.margins_by_cost.get(arm.arm)
    return {
        "accuracy": arm.accuracy,
        "accuracy_low": arm.interval.low if arm.interval else None,
        "accuracy_high": arm.interval.high if arm.interval else None,
        "n": arm.n,
        "questions": arm.questions,
        "no_answer_share": arm.no_answer_share,
        "errors": arm.errors,
        "fallbacks": arm.fallbacks,
        "teacher_output_tokens": arm.teacher_output_tokens,
        "teacher_computed_tokens": arm.teacher_computed_tokens,
        "teacher_cached_tokens": arm.teacher_cached_tokens,
        "teacher_token_share": arm.teacher_token_share,
        "student_output_tokens": arm.student_output_tokens,
        "calls": arm.calls,
        "cost_usd": arm.cost_usd,
        "cost_share": arm.cost_share,
        "gap_recovered": arm.recovery.value if arm.recovery else None,
        "gap_recovered_low": recovered.low if recovered else None,
        "gap_recovered_high": recovered.high if recovered else None,
        "on_cost_front": arm.arm in task.front_by_cost,
        "on_token_front": arm.arm in task.front_by_tokens,
        "margin_at_cost": margin.value if margin else None,
        "margin_at_cost_low": margin.interval.low if margin else None,
        "margin_at_cost_high": margin.interval.high if margin else None,
        "first_token_p50_s": arm.first_token_p50_s,
        "p50_s": arm.p50_s,
        "p95_s": arm.p95_s,
        "bytes": arm.bytes,
    }


def _warnings(gathered: Gathered) -> list[str]:
    said = []
    if gathered.replaced:
        said.append(f"{gathered.replaced} rows are in more than one of the folders: the later folder's count")
    if not gathered.rows:
        said.append("the runs have no rows yet")
    elif all(row.arm != TEACHER for row in gathered.rows):
        said.append("no run has the arm teacher: costs are in dollars only, and no share of the gap is known")
    return said


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
