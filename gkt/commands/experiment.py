"""`gkt experiment`: live A/B tests. `simulate` checks their statistics without any service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from cloud_teacher.experiments.simulation.report import SimulationReport

app = typer.Typer(
    name="experiment",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

WANTED = {"aa_false_positive": "≤ 0.05", "srm_false_alarm": "≤ 0.01", "arm_changes": "0"}


@app.callback()
def _root() -> None:
    """Live A/B tests of policies, templates and teachers."""


@app.command()
def simulate(
    *,
    runs: Annotated[int, typer.Option(min=10, help="Simulated A/A experiments for each kind of metric.")] = 2000,
    outcomes: Annotated[int, typer.Option(min=25, help="Outcomes of each A/A experiment.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 1,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", dir_okay=False, help="Also write the figures to this file, as {name: value}."),
    ] = None,
) -> None:
    """Simulate experiments: false positives of A/A tests, false sample-ratio alarms, changes of arms, and a power curve.

    Each A/A experiment is looked at after every 25 outcomes, and counts as a false positive if it ever shows a difference. This
    takes about a minute on one core.

    Example: gkt experiment simulate --json figures.json
    """
    if json_file and not json_file.parent.is_dir():
        raise ConfigurationError(f"{json_file} cannot be written: {json_file.parent} is not a folder")
    try:
        from cloud_teacher.experiments.simulation import report
    except ModuleNotFoundError as error:
        if error.name not in {"numpy", "scipy"}:
            raise
        raise ConfigurationError(f"gkt experiment simulate needs {error.name}: pip install 'gkt[fleet]'") from error
    with Console(stderr=True).status("simulating") as status:
        simulated = report.simulate(runs=runs, outcomes=outcomes, seed=seed, progress=status.update)
    _print(simulated, Console())
    if json_file:
        values: dict[str, object] = {**simulated.figures(), "runs": runs, "outcomes": outcomes, "seed": seed}
        values["power"] = [point._asdict() for point in simulated.curve]
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        try:
            json_file.write_text(text, "utf-8")
        except OSError as error:
            raise ConfigurationError(f"{json_file} cannot be written: {error.strerror}") from error


def _print(simulated: SimulationReport, console: Console) -> None:
    figures = Table("figure", box=None, header_style="bold", pad_edge=False)
    figures.add_column("value", justify="right")
    figures.add_column("wanted", justify="right")
    for name, value in simulated.figures().items():
        figures.add_row(name, f"{value:g}", WANTED.get(name, ""))
    console.print(figures)
    console.print()
    points = Table("power: metric", box=None, header_style="bold", pad_edge=False)
    for column in ("effect", "better", "worse", "no difference", "undecided", "median outcomes"):
        points.add_column(column, justify="right")
    for point in simulated.curve:
        shares = (point.better, point.worse, point.no_difference, point.undecided)
        median = "" if point.outcomes is None else f"{point.outcomes:,.0f}"
        points.add_row(point.workload, f"{point.effect:g}", *(f"{share:.2f}" for share in shares), median)
    console.print(points)
