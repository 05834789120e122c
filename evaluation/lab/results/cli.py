"""`gkt eval log`: a result folder as logs of inspect_ai."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from evaluation.lab.errors import BadFolder
from evaluation.lab.results.folder import RUN, read_rows, read_run
from shared.errors import ConfigurationError


def log(
    folder: Annotated[Path, typer.Argument(help="Result folder of gkt eval run.")],
    *,
    to: Annotated[Path, typer.Option(file_okay=False, help="Folder for the logs; older ones of the run are replaced.")],
) -> None:
    """Write a run as logs of inspect_ai, one for each arm. To look at them: inspect view --log-dir TO

    Each sample has the question, the raw output, the verdict with the extracted answer, each model's tokens, and in its metadata
    the source of each part.
    """
    run, rows = read_run(folder), read_rows(folder)
    if run is None or not rows:
        raise BadFolder(f"{folder} has no rows")
    try:
        # Only here: it takes two seconds.
        from evaluation.lab.results.inspect_log import write_logs
    except ModuleNotFoundError:
        raise ConfigurationError("gkt eval log needs inspect_ai: pip install 'gkt[eval]'") from None
    created = datetime.fromtimestamp((folder / RUN).stat().st_mtime, UTC)
    for path in write_logs(run, rows, to, created):
        typer.echo(str(path))
