"""What every bench does around its measurements: says what it is at, goes on where one cannot be had, reports, ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status

from evaluation.bench.report import complain, report
from evaluation.bench.results import Result
from evaluation.figures import NotMeasured
from evaluation.servers import machine
from evaluation.servers.services import stopped_on_sigterm
from shared.errors import GktError


class Measuring:
    """A bench under way."""

    def __init__(self, err: Console, status: Status) -> None:
        self.failed = False
        self._err = err
        self._status = status
        self._results: list[Result] = []
        self._busy = 0.0

    def say(self, text: str) -> None:
        """What it is at."""
        self._status.update(text)

    def look(self) -> None:
        """Whether others use the machine, before anything of ours does."""
        self.say("looking whether the machine is idle")
        self._busy = machine.busy_cores()

    def take(self, name: str, measure: Callable[[], Result]) -> None:
        """One measurement. Where it cannot be had that is said, and the others go on."""
        try:
            self._results.append(measure())
        except (NotMeasured, GktError) as error:
            self.failed = True
            complain(f"{name}: {error}", self._err)

    def report(self, title: str, about: Mapping[str, str], json_file: Path | None) -> None:
        self._status.stop()
        report(self._results, title, about, self._busy, Console(), json_file=json_file)


@contextmanager
def measuring(doing: str) -> Iterator[Measuring]:
    """Ends the command with status 1 where something could not be measured; SIGTERM stops all that was started."""
    err = Console(stderr=True)
    failed = False
    try:
        with stopped_on_sigterm(), err.status(doing) as status:
            bench = Measuring(err, status)
            yield bench
        failed = bench.failed
    except (NotMeasured, GktError, OSError) as error:
        failed = True
        complain(str(error), err)
    if failed:
        raise typer.Exit(1)
