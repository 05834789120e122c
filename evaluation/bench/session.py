"""Shared scaffolding of the `gkt bench` commands: options, progress, skipped measurements, the report, the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from evaluation.figures import Measurement, NotMeasured
from evaluation.servers import machine
from evaluation.servers.processes import exit_on_sigterm
from shared.errors import GktError

IDLE_CORES = 0.2
"""Busy cores before a measurement up to which the machine counts as idle."""
VERDICTS = {None: "", True: "[green]met[/green]", False: "[red]not met[/red]"}

ONLY = typer.Option(help="Run only this benchmark; may be repeated. If unset, all run.")
JsonFile = Annotated[
    Path | None, typer.Option("--json", dir_okay=False, help="Also write the figures to this file, as {name: value}.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Compute threads of each engine. If unset, all cores.")]
StartS = Annotated[float, typer.Option(help="Seconds that a server may take to start, downloads included.")]


class Session:
    """A running benchmark command."""

    def __init__(self, err: Console, status: Status) -> None:
        self.failed = False
        self.progress: Callable[[str], None] = status.update
        self._err = err
        self._status = status
        self._measurements: list[Measurement] = []
        self.busy_cores = 0.0

    def check_idle(self) -> None:
        """Measure how busy the machine is before any server starts."""
        self.progress("checking whether the machine is idle")
        self.busy_cores = machine.busy_cores()

    def measure(self, name: str, measurement: Callable[[], Measurement]) -> None:
        """Run one measurement. If it fails, print the reason and continue."""
        try:
            self._measurements.append(measurement())
        except (NotMeasured, GktError) as error:
            self.failed = True
            print_failure(f"{name}: {error}", self._err)

    def report(self, title: str, about: Mapping[str, str], json_file: Path | None, console: Console) -> None:
        """Print the figures; write them, the raw values and `about` (what was measured) to the JSON file."""
        self._status.stop()
        where = machine.describe()
        figures = [figure for measurement in self._measurements for figure in measurement.figures]
        table = Table("figure", box=None, header_style="bold", pad_edge=False)
        table.add_column("value", justify="right")
        table.add_column("target", justify="right")
        table.add_column("met")
        table.add_column("how it was measured", style="dim")
        for figure in figures:
            table.add_row(figure.name, f"{figure.value:,.2f}", figure.target, VERDICTS[figure.met], escape(figure.how))
        console.print(table)
        console.print(escape(f"{title}, on {where}"), soft_wrap=True, highlight=False)
        if self.busy_cores > IDLE_CORES:
            busy = f"{self.busy_cores:.1f} cores were busy with other work: these figures are not valid"
            console.print(f"[yellow]{busy}[/yellow]")
        if json_file:
            values: dict[str, float | str] = {figure.name: figure.value for figure in figures}
            for measurement in self._measurements:
                values |= measurement.raw
            values |= {"busy_cores_before": self.busy_cores, "machine": where, **about}
            json_file.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", "utf-8")


def print_failure(message: str, console: Console) -> None:
    console.print(f"[red]not measured: {escape(message)}[/red]", soft_wrap=True, highlight=False)


@contextmanager
def session(status: str) -> Iterator[Session]:
    """Run a benchmark command. It exits with 1 if something could not be measured; SIGTERM stops all that was started."""
    err = Console(stderr=True)
    failed = False
    try:
        with exit_on_sigterm(), err.status(status) as spinner:
            running = Session(err, spinner)
            yield running
        failed = running.failed
    except (NotMeasured, GktError, OSError) as error:
        failed = True
        print_failure(str(error), err)
    if failed:
        raise typer.Exit(1)
