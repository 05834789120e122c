"""`gkt eval run`: a task's questions under several arms, into a folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluation.lab import arms as lab_arms
from evaluation.lab import tasks
from evaluation.lab.results.rows import Row
from evaluation.lab.runs.config import Setup
from evaluation.lab.runs.judge import Judge
from evaluation.lab.runs.runner import run as run_all
from evaluation.lab.runs.summary import summary
from evaluation.lab.tasks import data as lab_data
from evaluation.lab.terminal import stdout

INTERRUPTED = 130

DataFile = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False, help="The task's data file, as its authors publish it; one in GKT_HOME/data where unset."
    ),
]
"""The option of every command that asks a task's questions."""
Reuse = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Folder of another run, whose answers are taken where the same models would be asked the same; may be given again.",
    ),
]
"""Likewise."""


def run(
    *,
    task: Annotated[str, typer.Option(help=f"{', '.join(tasks.names())}, or your own as path/to/file.py:function.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the rows; a run that is there goes on.")],
    arm: Annotated[
        list[str],
        typer.Option(
            help="Who answers; may be given again: off, teacher, fixed:40, naive:40, random:10-80, outline:100, "
            "adaptive:handback_after=3, on_demand:confidence_threshold=0.5, "
            "review:acceptance_threshold=0.5,max_correction_tokens=1, "
            "route:confidence_threshold=0.9, cascade:confidence_threshold=0.9."
        ),
    ],
    data: DataFile = None,
    edge: Annotated[str, typer.Option(help="Base URL of the edge.")] = "http://127.0.0.1:8081",
    lines: Annotated[
        str | None, typer.Option(help="Lines of the file, as 501-1000, both included; all where unset.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Of these the first so many.")] = None,
    shots: Annotated[int, typer.Option(min=0, max=100, help="Worked examples in the prompt, at most.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, both sides together.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the lengths that random draws, and of every request.")] = 0,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Questions at once. Times mean most with 1, and one arm at a time.")
    ] = 8,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds an answer may be silent.")] = 600,
    any_data: Annotated[bool, typer.Option("--any-data", help="Take a file that the lab does not know.")] = False,
    reuse: Reuse = None,
    retry_fallbacks: Annotated[
        bool, typer.Option("--retry-fallbacks", help="Ask again where the student had to go on without the cloud.")
    ] = False,
    judge: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BASE_URL MODEL",
            help="Model that compares the answers of mt_bench with the teacher's, behind OpenAI's API.",
        ),
    ] = None,
    judge_key_env: Annotated[str, typer.Option(help="Variable that holds the judge's key, if it wants one.")] = (
        "GKT_JUDGE_KEY"
    ),
) -> None:
    """Ask a task's questions under every arm, greedily, and keep all that came of it.

    All arms take turns, block by block of questions. Stopped in the middle, in whichever way, nothing that was measured is
    lost: the same command does what is missing. Ends with 1 where some questions could not be asked.

    Example: gkt eval run --task gsm8k --data train.jsonl --lines 1-500 --limit 50 --arm off --arm fixed:40 --arm teacher
    --out results
    """
    chosen = lab_data.Lines.parse(lines) if lines else lab_data.Lines()
    parsed = lab_arms.parse_all(arm)
    loaded, task_file_sha256 = tasks.load(task)
    judge_key = os.environ.get(judge_key_env)
    setup = Setup(
        task=loaded,
        data=lab_data.load(loaded, data or lab_data.kept(loaded), chosen, limit=limit, any_data=any_data),
        arms=parsed,
        lines=chosen,
        limit=limit,
        shots=shots,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        timeout_s=timeout_s,
        retry_fallbacks=retry_fallbacks,
        reuse=reuse or (),
        task_file_sha256=task_file_sha256,
        judge=Judge(*judge, SecretStr(judge_key) if judge_key else None, timeout_s) if judge else None,
    )
    err = Console(stderr=True)
    rows: list[Row] = []
    try:
        with progress_bars(err) as progress:
            bar = progress.add_task(loaded.name, total=None)
            rows = asyncio.run(
                run_all(setup, edge, out, lambda done, total: progress.update(bar, completed=done, total=total))
            )
    except KeyboardInterrupt:
        err.print(f"[yellow]stopped; what was measured is in {out}, and the same command goes on from there[/yellow]")
        raise typer.Exit(INTERRUPTED) from None
    summary(rows, [one.text for one in parsed], stdout())
    if any(row.error for row in rows):
        raise typer.Exit(1)


def progress_bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )
