"""What a bench prints: the figures as a table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.bench.results import Result
from evaluation.figures import Figure
from evaluation.servers import machine

QUIET_CORES = 0.2
"""So many busy cores before a measurement are no reason to doubt it."""


def report(
    results: Sequence[Result],
    title: str,
    about: Mapping[str, str],
    busy: float,
    console: Console,
    *,
    json_file: Path | None,
) -> None:
    """The table, and the JSON file: figures and raw values by their names, and `about`, which says what was measured."""
    where = machine.describe()
    figures = [figure for result in results for figure in result.figures]
    table = Table("figure", box=None, header_style="bold", pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("asked", justify="right")
    table.add_column("met")
    table.add_column("how it was measured", style="dim")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:,.2f}", figure.asked, _verdict(figure), escape(figure.how))
    console.print(table)
    console.print(escape(f"{title}, on {where}"), soft_wrap=True, highlight=False)
    if busy > QUIET_CORES:
        console.print(f"[yellow]{busy:.1f} cores were busy with other things: these figures are worth nothing[/yellow]")
    if json_file:
        values: dict[str, float | str] = {figure.name: figure.value for figure in figures}
        for result in results:
            values |= result.raw
        values |= {"busy_cores_before": busy, "machine": where, **about}
        json_file.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", "utf-8")


def complain(message: str, console: Console) -> None:
    console.print(f"[red]not measured: {escape(message)}[/red]", soft_wrap=True, highlight=False)


def _verdict(figure: Figure) -> str:
    if figure.met is None:
        return ""
    return "[green]met[/green]" if figure.met else "[red]not met[/red]"
