"""Command-line options that several commands of the laboratory share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluation.lab import tasks

TaskName = Annotated[str, typer.Option(help=f"{', '.join(tasks.names())}, or your own as path/to/file.py:function.")]
DataFile = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False, help="The task's data file, as its authors publish it. If unset, one in GKT_HOME/data is used."
    ),
]
EdgeUrl = Annotated[str, typer.Option(help="Base URL of the edge.")]
Shots = Annotated[int, typer.Option(min=0, max=100, help="Maximum number of worked examples in the prompt.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum number of tokens of an answer, both models together.")]
Seed = Annotated[int, typer.Option(help="Random seed for every request, and for the lengths of the arm `random`.")]
Concurrency = Annotated[
    int, typer.Option(min=1, max=256, help="Questions asked at once. Times are most meaningful with 1, and one arm.")
]
TimeoutS = Annotated[float, typer.Option(min=1, help="Longest silence of an answer, in seconds.")]
AllowUnknownData = Annotated[
    bool, typer.Option("--allow-unknown-data", help="Accept a data file that the lab does not know.")
]
Reuse = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Folder of another run: take its answers if the same models would be asked the same. May be repeated.",
    ),
]
RunFolders = Annotated[
    list[Path], typer.Argument(metavar="FOLDER...", exists=True, file_okay=False, help="Runs of `gkt eval run`.")
]
PricesFile = Annotated[
    Path | None, typer.Option(dir_okay=False, help="TOML file of prices by model. If unset, gkt's own prices are used.")
]
TeacherModel = Annotated[str | None, typer.Option(help="The teacher whose prices are used.")]
