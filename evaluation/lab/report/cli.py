"""`gkt eval report`: the results of runs as one HTML file, as Markdown, and as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from evaluation.lab import options
from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary, summarise
from evaluation.lab.analysis.price_table import load_prices, prices_of
from evaluation.lab.analysis.statistics import Interval
from evaluation.lab.arm_names import TEACHER
from evaluation.lab.report.pages import markdown, page
from evaluation.lab.results.folder import rows_in
from evaluation.lab.results.rows import Row
from evaluation.lab.terminal import stdout
from shared.errors import ConfigurationError
from shared.prices import Prices


@dataclass(frozen=True, slots=True)
class Gathered:
    """The rows of several runs. `replaced` counts the rows that a later folder has too; the later row counts."""

    rows: tuple[Row, ...]
    replaced: int


def report(
    folders: options.RunFolders,
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
            metavar="A B", help="Show the questions on which these arms differ. If unset, off and the best policy."
        ),
    ] = None,
    prices: options.PricesFile = None,
    model: options.TeacherModel = None,
) -> None:
    """Report the results of runs: accuracy with intervals, cost, tokens and latency of every arm, by task.

    The arms `off` and `teacher` are the references. If two folders have a question under the same arm, the later folder's row
    counts.

    Example: gkt eval report runs/gsm8k --html report.html --json report.json
    """
    if not (html or markdown_file or json_file):
        raise typer.BadParameter("there is nothing to write; give --html, --markdown or --json")
    gathered = gather(folders)
    teacher_prices = prices_of(load_prices(prices), model)
    tasks = summarise(gathered.rows, teacher_prices)
    if between:
        check_arms(tasks, between)
    title = "How much guidance is worth: " + (", ".join(task.task for task in tasks) or "no rows")
    head: dict[str, Any] = {"title": title, "about": _about(folders, teacher_prices, model)}
    head["warnings"] = _warnings(gathered)
    if html:
        _write(html, page(tasks, **head, between=between))
    if markdown_file:
        _write(markdown_file, markdown(tasks, **head))
    if json_file:
        values = {task.task: {arm.arm: _values(task, arm) for arm in task.arms} for task in tasks}
        _write(json_file, json.dumps(values, indent=2, allow_nan=False) + "\n")


def gather(folders: Sequence[Path]) -> Gathered:
    """Return the rows of all folders. Raises BadFolder."""
    every = [row for folder in folders for row in rows_in(folder)]
    rows = {(row.task, row.question_id, row.arm): row for row in every}
    return Gathered(tuple(rows.values()), len(every) - len(rows))


def check_arms(tasks: Sequence[TaskSummary], names: Sequence[str]) -> None:
    """Raises ConfigurationError, with the arms of the runs, for a name that is none of them."""
    arms = list(dict.fromkeys(arm.arm for task in tasks for arm in task.arms))
    for name in names:
        if name not in arms:
            raise ConfigurationError(f"these runs have no arm {name!r}; their arms are {', '.join(arms) or 'none'}")


def _about(folders: Sequence[Path], prices: Prices, model: str | None) -> str:
    return (
        f"From {', '.join(str(folder) for folder in folders)}. Prices of {model or 'a default teacher'}, in US dollars per "
        f"million tokens: {prices.input_usd:g} input, {prices.cached_input_usd:g} cached input, {prices.output_usd:g} output. "
        "Intervals are of 95\N{NO-BREAK SPACE}%: Wilson's for accuracies, a paired bootstrap for differences and for "
        "shares of the gap."
    )


def _values(task: TaskSummary, arm: ArmSummary) -> dict[str, Any]:
    """Return an arm's figures by name. Unknown figures are None."""
    margin, recovery = task.margins_by_cost.get(arm.arm), arm.recovery
    values = {name: value for name, value in asdict(arm).items() if name not in {"arm", "interval", "recovery"}}
    return {
        **values,
        **_bounds("accuracy", arm.interval),
        "gap_recovered": recovery.value if recovery else None,
        **_bounds("gap_recovered", recovery.interval if recovery else None),
        "margin_at_cost": margin.value if margin else None,
        **_bounds("margin_at_cost", margin.interval if margin else None),
        "on_cost_front": arm.arm in task.front_by_cost,
        "on_token_front": arm.arm in task.front_by_tokens,
    }


def _bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _warnings(gathered: Gathered) -> list[str]:
    warnings = []
    if gathered.replaced:
        warnings.append(f"{gathered.replaced} rows are in more than one of the folders; the later folder's rows count")
    if not gathered.rows:
        warnings.append("the runs have no rows yet")
    elif all(row.arm != TEACHER for row in gathered.rows):
        warnings.append("no run has the arm teacher: costs are in dollars only, and no share of the gap is known")
    return warnings


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    stdout().print(f"wrote {escape(str(path))}", soft_wrap=True, highlight=False)
