"""Where the laboratory prints, and its tables of arms."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table

LOG_COLUMNS = 160
"""Of a line where nobody says how many fit: in a file, in a pipe."""


def stdout() -> Console:
    """What the laboratory prints to."""
    own = Console()
    return own if own.is_terminal or "COLUMNS" in os.environ else Console(width=LOG_COLUMNS)


def arms_table(*columns: str) -> Table:
    """With a line an arm. Names are folded, never cut, since two arms may begin alike."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table
