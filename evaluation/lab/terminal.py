"""Output of the laboratory on the terminal: the console, tables of arms, progress bars."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LOG_COLUMNS = 160
"""Width of a line when the output is a file or a pipe, which have no width."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def stdout() -> Console:
    """Return the console for results."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=LOG_COLUMNS)


def arms_table(*columns: str) -> Table:
    """Return a table with a row for each arm. It folds names and never cuts them, since two arms may begin alike."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


@contextmanager
def progress_bar(name: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar. The function that it yields takes the number of finished rows and of all rows."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
