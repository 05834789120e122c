"""`gkt eval run`: ask a task's questions under several arms, and write the answers into a folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console

from evaluation.lab import arms as lab_arms
from evaluation.lab import options, tasks
from evaluation.lab.runs.config import RunConfig
from evaluation.lab.runs.judge import Judge
from evaluation.lab.runs.runner import run as run_all
from evaluation.lab.runs.summary import print_summary
from evaluation.lab.tasks import data as lab_data
from evaluation.lab.terminal import INTERRUPTED, progress_bar, stdout


def run(
    *,
    task: options.TaskName,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the rows; a run in it is resumed.")],
    arm: Annotated[
        list[str],
        typer.Option(
            help="Which model answers; may be repeated: off, teacher, fixed:40, naive:40, random:10-80, outline:100, "
            "adaptive:handback_after=3, on_demand:confidence_threshold=0.5, "
            "review:acceptance_threshold=0.5,max_correction_tokens=1, "
            "route:confidence_threshold=0.9, cascade:confidence_threshold=0.9."
        ),
    ],
    data: options.DataFile = None,
    edge: options.EdgeUrl = "http://127.0.0.1:8081",
    data_range: Annotated[
        str | None,
        typer.Option(help="Lines of the file, such as 501-1000, both included. If unset, all lines are used."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first of these lines, this many.")] = None,
    shots: options.Shots = 4,
    max_tokens: options.MaxTokens = 300,
    seed: options.Seed = 0,
    concurrency: options.Concurrency = 8,
    timeout_s: options.TimeoutS = 600,
    allow_unknown_data: options.AllowUnknownData = False,
    reuse: options.Reuse = None,
    retry_fallbacks: Annotated[
        bool, typer.Option("--retry-fallbacks", help="Ask again if the student had to go on without the cloud.")
    ] = False,
    judge: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BASE_URL MODEL",
            help="Model, behind OpenAI's API, that compares the answers of mt_bench with the teacher's.",
        ),
    ] = None,
    judge_key_env: Annotated[str, typer.Option(help="Environment variable with the judge's key, if it needs one.")] = (
        "GKT_JUDGE_KEY"
    ),
) -> None:
    """Ask a task's questions under every arm, greedily, and keep every answer with its cost.

    The arms take turns, block by block of questions. A run that was stopped, however it was stopped, loses no answer: the same
    command asks what is missing. Exits with 1 if some questions failed.

    Example: gkt eval run --task gsm8k --data train.jsonl --data-range 1-500 --limit 50 --arm off --arm fixed:40 --arm teacher
    --out results
    """
    lines = lab_data.LineRange.parse(data_range) if data_range else lab_data.LineRange()
    arms = lab_arms.parse_all(arm)
    loaded = tasks.load(task)
    file = data or lab_data.find_data_file(loaded)
    judge_key = os.environ.get(judge_key_env)
    config = RunConfig(
        task=loaded,
        data=lab_data.load(loaded, file, lines, limit=limit, allow_unknown=allow_unknown_data),
        arms=arms,
        shots=shots,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        timeout_s=timeout_s,
        retry_fallbacks=retry_fallbacks,
        reuse=reuse or (),
        judge=Judge(*judge, SecretStr(judge_key) if judge_key else None, timeout_s) if judge else None,
    )
    err = Console(stderr=True)
    try:
        with progress_bar(loaded.name, err) as on_progress:
            rows = asyncio.run(run_all(config, edge, out, on_progress))
    except KeyboardInterrupt:
        err.print(f"[yellow]stopped; the answers are in {out}, and the same command goes on from there[/yellow]")
        raise typer.Exit(INTERRUPTED) from None
    print_summary(rows, [one.text for one in arms], stdout())
    if any(row.error for row in rows):
        raise typer.Exit(1)
