"""`gkt tune`: find the cheapest policy that keeps a part of the teacher's accuracy, and write it as a policy file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from shared.errors import ConfigurationError

try:
    from evaluation.lab import arms as lab_arms
    from evaluation.lab import options, tasks
    from evaluation.lab.analysis.price_table import load_prices
    from evaluation.lab.arm_names import OFF, TEACHER
    from evaluation.lab.errors import BadData
    from evaluation.lab.results.folder import open_folder
    from evaluation.lab.runs.config import RunConfig
    from evaluation.lab.tasks import data as lab_data
    from evaluation.lab.terminal import INTERRUPTED, progress_bar, stdout
    from evaluation.lab.tuning.output import Report
    from evaluation.lab.tuning.policy import policy_of
    from evaluation.lab.tuning.state import Objective, SearchSpec, open_search
    from evaluation.lab.tuning.tuner import Tuner, check_arms, default_grid
except ModuleNotFoundError as error:
    if error.name not in {"numpy", "scipy"}:
        raise
    raise ConfigurationError(f"gkt tune needs {error.name}: pip install 'gkt[eval]'") from error

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

NO_POLICY = 3
"""Exit status if no policy keeps enough accuracy."""


@app.command()
def tune(
    *,
    task: options.TaskName,
    data: options.DataFile = None,
    tuning_range: Annotated[
        str | None,
        typer.Option(
            help="Lines of the file to choose by, such as 1-500, both included. If unset, the first half of its first 1000."
        ),
    ] = None,
    reporting_range: Annotated[
        str | None, typer.Option(help="Other lines, to check the choice on. If unset, the second half.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the stages; a search in it is resumed. If unset, tuning-TASK."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Policy file to write. If unset, TASK-policy.json.")
    ] = None,
    keep: Annotated[float, typer.Option(help="Part of the teacher's accuracy to keep, above 0 and at most 1.")] = 0.95,
    minimize: Annotated[
        Objective, typer.Option(help="What to minimize: the teacher's cost, or its output tokens.")
    ] = "cost",
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Arm to try instead of the default grid; may be repeated. `off` and `teacher` are added."),
    ] = None,
    edge: options.EdgeUrl = "http://127.0.0.1:8081",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first of the tuning lines, this many.")] = None,
    report_limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first of the reporting lines, this many.")
    ] = None,
    first_block: Annotated[
        int, typer.Option(min=1, help="Questions of the first stage; each later stage doubles the number so far.")
    ] = 50,
    prices: options.PricesFile = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the policy, which answers report. If unset, the task and the arm.")
    ] = None,
    write_best_effort: Annotated[
        bool,
        typer.Option(
            "--write-best-effort", help="Write a policy file even if no arm keeps enough; the exit status is still 3."
        ),
    ] = False,
    rollout: Annotated[
        bool,
        typer.Option(
            "--rollout",
            help="Also consider arms, and the teacher, for a fraction of the requests, with the student alone for the rest. "
            "This needs no more questions.",
        ),
    ] = False,
    shots: options.Shots = 4,
    max_tokens: options.MaxTokens = 300,
    seed: options.Seed = 0,
    concurrency: options.Concurrency = 8,
    timeout_s: options.TimeoutS = 600,
    reuse: options.Reuse = None,
    allow_unknown_data: options.AllowUnknownData = False,
) -> None:
    """Find the cheapest policy that keeps a part of the teacher's accuracy, check it on other questions, write a policy file.

    All arms meet the first block of the tuning questions; those that can hardly win are dropped, the others go on. The
    cheapest arm that keeps enough is then asked the reporting questions, beside student and teacher alone, and the policy file
    has the result. If it is stopped, the same command goes on. Exits with 3 if no arm keeps enough.

    Example: gkt tune --task gsm8k --data train.jsonl --keep 0.95, then gkt edge --policy gsm8k-policy.json
    """
    if not 0 < keep <= 1:
        raise typer.BadParameter(f"--keep must be above 0 and at most 1, not {keep:g}")
    loaded = tasks.load(task)
    file = data or lab_data.find_data_file(loaded)
    tuned = lab_data.LineRange.parse(tuning_range) if tuning_range else lab_data.halves(file)[0]
    reported = lab_data.LineRange.parse(reporting_range) if reporting_range else lab_data.halves(file)[1]
    if tuned.first <= (reported.last or 0) and reported.first <= (tuned.last or 0):
        raise BadData(f"tuning lines {tuned} and reporting lines {reported} overlap; the check needs other questions")
    tried = [one for one in lab_arms.parse_all(arm or default_grid(max_tokens)) if one.text not in {OFF, TEACHER}]
    arms = [lab_arms.Arm.parse(OFF), *tried, lab_arms.Arm.parse(TEACHER)]
    check_arms(arms)
    load = partial(lab_data.load, loaded, file, allow_unknown=allow_unknown_data)
    tuning = RunConfig(
        task=loaded,
        data=load(tuned, limit=limit),
        arms=arms,
        shots=shots,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        timeout_s=timeout_s,
        retry_fallbacks=True,
        reuse=reuse or (),
    )
    reporting = replace(tuning, data=load(reported, limit=report_limit))
    table = load_prices(prices)
    spec = SearchSpec(
        task=loaded.name,
        task_file_sha256=loaded.file_sha256,
        data_sha256=tuning.data.sha256,
        tuning_range=str(tuned),
        reporting_range=str(reported),
        tuning_questions=len(tuning.data.questions),
        reporting_questions=len(reporting.data.questions),
        first_block=first_block,
        keep=keep,
        minimize=minimize,
        prices=dict(table) if prices else None,
        arms=[one.text for one in arms],
        shots=shots,
        max_tokens=max_tokens,
        seed=seed,
    )
    out, policy = out or Path(f"tuning-{loaded.name}"), policy or Path(f"{loaded.name}-policy.json")
    err = Console(stderr=True)
    try:
        with open_folder(out):
            progress = partial(progress_bar, console=err)
            tuner = Tuner(tuning, reporting, edge, out, open_search(out, spec), table, progress)
            reached = asyncio.run(_tune(tuner, policy, name, write_best_effort=write_best_effort, rollout=rollout))
    except KeyboardInterrupt:
        err.print(f"[yellow]stopped; the answers are in {out}, and the same command goes on from there[/yellow]")
        raise typer.Exit(INTERRUPTED) from None
    if not reached:
        raise typer.Exit(NO_POLICY)


async def _tune(tuner: Tuner, file: Path, name: str | None, *, write_best_effort: bool, rollout: bool) -> bool:
    """Return True if a policy keeps enough, by its estimate at least, on the reporting lines too."""
    report = Report(tuner, stdout())
    async for stage in tuner.stages():
        report.stage(stage)
    chosen = tuner.choice(rollout=rollout)
    report.choice(chosen)
    candidate = chosen or tuner.best_effort()
    if candidate is None or not (chosen or write_best_effort):
        report.best_effort(candidate)
        return False
    rows = await tuner.report(candidate)
    policy = policy_of(candidate, rows, tuner, name)
    assert policy.evidence is not None  # noqa: S101 - made a line above
    report.evidence(policy.evidence, rows)
    reached = chosen is not None and policy.evidence.kept_share >= tuner.spec.keep
    if reached or write_best_effort:
        policy.write(file)
        report.say(escape(f"wrote {file}; gkt edge --policy {file} loads it"))
    else:
        report.say("no policy file is written; --write-best-effort writes one")
    return reached
