"""`gkt tune`: finds the cheapest policy that keeps the asked share of the teacher's accuracy, and writes it as a policy file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import Progress

from shared.errors import ConfigurationError

try:
    from evaluation.lab import arms as lab_arms
    from evaluation.lab import tasks
    from evaluation.lab.analysis.price_table import PriceTable
    from evaluation.lab.arm_names import OFF, TEACHER
    from evaluation.lab.errors import BadData
    from evaluation.lab.results.folder import locked
    from evaluation.lab.runs.cli import INTERRUPTED, DataFile, Reuse, progress_bars
    from evaluation.lab.runs.config import Setup
    from evaluation.lab.tasks import data as lab_data
    from evaluation.lab.terminal import stdout
    from evaluation.lab.tuning import output
    from evaluation.lab.tuning.policy import policy_of
    from evaluation.lab.tuning.state import By, TunePlan, opened
    from evaluation.lab.tuning.tuner import Tuner, check_arms, default_grid
except ModuleNotFoundError as error:
    if error.name not in {"numpy", "scipy"}:
        raise
    raise ConfigurationError(f"gkt tune needs {error.name}: pip install 'gkt[eval]'") from error

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

NOTHING_REACHES = 3


@app.command()
def tune(
    *,
    task: Annotated[str, typer.Option(help=f"{', '.join(tasks.names())}, or your own as path/to/file.py:function.")],
    data: DataFile = None,
    tune_lines: Annotated[
        str | None,
        typer.Option(
            help="Lines of the file to choose by, as 1-500, both included; the first half of its first 1000 where unset."
        ),
    ] = None,
    report_lines: Annotated[
        str | None, typer.Option(help="Lines to check the choice on: others than those; the second half where unset.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder for the stages, tuning-TASK where unset; a search that is there goes on."
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The policy file to write, TASK-policy.json where unset.")
    ] = None,
    keep: Annotated[float, typer.Option(help="Share of the teacher's accuracy to keep, above 0, at most 1.")] = 0.95,
    by: Annotated[By, typer.Option(help="What is to be little: cost by three prices, or teacher output tokens.")] = (
        "cost"
    ),
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="An arm to try instead of the default grid; may be given again. `off` and `teacher` are added."
        ),
    ] = None,
    edge: Annotated[str, typer.Option(help="Base URL of the edge.")] = "http://127.0.0.1:8081",
    limit: Annotated[int | None, typer.Option(min=1, help="Of the tuning lines the first so many.")] = None,
    report_limit: Annotated[int | None, typer.Option(min=1, help="Of the reporting lines the first so many.")] = None,
    first_block: Annotated[
        int, typer.Option(min=1, help="Questions of the first stage; each later one doubles what there is.")
    ] = 50,
    prices: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Prices by model, TOML; gkt's own where unset.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The policy's name, in answers too; task and arm where unset.")
    ] = None,
    write_nearest: Annotated[
        bool,
        typer.Option(
            "--write-nearest", help="Write a policy file though nothing reaches the share; still ends with 3."
        ),
    ] = False,
    shares: Annotated[
        bool,
        typer.Option(
            "--shares",
            help="Consider arms, and the teacher, for a share of the requests too, by lot; the student alone answers "
            "the others. Asks no more questions.",
        ),
    ] = False,
    shots: Annotated[int, typer.Option(min=0, max=100, help="Worked examples in the prompt, at most.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, both sides together.")] = 300,
    seed: Annotated[int, typer.Option(help="Of every request.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions at once.")] = 8,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds an answer may be silent.")] = 600,
    reuse: Reuse = None,
    any_data: Annotated[bool, typer.Option("--any-data", help="Take a file that the lab does not know.")] = False,
) -> None:
    """Find the cheapest policy that keeps a share of the teacher's accuracy, check it on others, write a policy file.

    All arms meet the first block of the tuning questions; those that can hardly win are dropped, the others go on. The
    cheapest that is left and keeps the share is asked the reporting questions, beside student and teacher alone, and the policy
    file says what came of that. Stopped in the middle, the same command does what is missing. Ends with 3 where nothing
    reaches the share.

    Example: gkt tune --task gsm8k --data train.jsonl --keep 0.95, then gkt edge --policy gsm8k-policy.json
    """
    if not 0 < keep <= 1:
        raise typer.BadParameter("keep is a share, above 0 and at most 1")
    loaded, task_file_sha256 = tasks.load(task)
    file = data or lab_data.kept(loaded)
    tuned = lab_data.Lines.parse(tune_lines) if tune_lines else lab_data.halves(file)[0]
    reported = lab_data.Lines.parse(report_lines) if report_lines else lab_data.halves(file)[1]
    if tuned.first <= (reported.last or 0) and reported.first <= (tuned.last or 0):
        raise BadData(f"tuning lines {tuned} and reporting lines {reported} overlap: the check would be none")
    out, policy = out or Path(f"tuning-{loaded.name}"), policy or Path(f"{loaded.name}-policy.json")
    tried = lab_arms.parse_all(arm or default_grid(max_tokens))
    arms = [
        lab_arms.Arm.parse(OFF),
        *(one for one in tried if one.text not in {OFF, TEACHER}),
        lab_arms.Arm.parse(TEACHER),
    ]
    check_arms(arms)
    tuning = Setup(
        task=loaded,
        data=lab_data.load(loaded, file, tuned, limit=limit, any_data=any_data),
        arms=arms,
        lines=tuned,
        limit=None,  # each stage has lines of its own
        shots=shots,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        timeout_s=timeout_s,
        retry_fallbacks=True,
        task_file_sha256=task_file_sha256,
        reuse=reuse or (),
    )
    reporting = replace(
        tuning,
        data=lab_data.load(loaded, file, reported, limit=report_limit, any_data=any_data),
        lines=reported,
        limit=report_limit,
    )
    table = PriceTable.load(prices)
    plan = TunePlan(
        task=loaded.name,
        task_file_sha256=task_file_sha256,
        data_sha256=tuning.data.sha256,
        tune_lines=str(tuned),
        report_lines=str(reported),
        tune_questions=len(tuning.data.questions),
        report_questions=len(reporting.data.questions),
        first_block=first_block,
        keep=keep,
        by=by,
        prices=output.flat(table) if prices else None,
        arms=[one.text for one in arms],
        shots=shots,
        max_tokens=max_tokens,
        seed=seed,
    )
    err = Console(stderr=True)
    try:
        with locked(out), Bars(err) as bars:
            tuner = Tuner(tuning, reporting, edge, out, opened(out, plan), table, bars)
            reached = asyncio.run(_tune(tuner, bars, policy, name, write_nearest=write_nearest, shares=shares))
    except KeyboardInterrupt:
        err.print(f"[yellow]stopped; what was measured is in {out}, and the same command goes on from there[/yellow]")
        raise typer.Exit(INTERRUPTED) from None
    if not reached:
        raise typer.Exit(NOTHING_REACHES)


class Bars:
    """A progress bar for the stage under way. It leaves the terminal to whoever calls `stop` first, tables for instance."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage: str | None = None
        self._progress: Progress | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._progress is None or stage != self._stage:
            self.stop()
            self._stage, self._progress = stage, progress_bars(self._console)
            self._progress.add_task(stage, total=total)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done, total=total)

    def stop(self) -> None:
        if self._progress:
            self._progress.stop()
        self._progress = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _tune(tuner: Tuner, bars: Bars, file: Path, name: str | None, *, write_nearest: bool, shares: bool) -> bool:
    """Whether a policy reaches the share asked for, by its estimate at least, on the reporting lines too."""
    console = stdout()
    async for stage in tuner.stages():
        bars.stop()
        output.stage(stage, tuner, console)
    chosen = tuner.choice(shares=shares)
    output.choice(chosen, tuner, console)
    taken = chosen or tuner.nearest()
    if taken is None or not (chosen or write_nearest):
        output.nearest(taken, tuner, console)
        return False
    rows = await tuner.report(taken)
    bars.stop()
    policy = policy_of(taken, rows, tuner, name)
    output.evidence(policy, tuner, rows, console)
    assert policy.evidence is not None  # noqa: S101 - it was made a line above
    reached = chosen is not None and policy.evidence.kept_share >= tuner.keep
    if reached or write_nearest:
        policy.write(file)
        console.print(f"wrote {file}; gkt edge --policy {file} loads it", soft_wrap=True, highlight=False, markup=False)
    else:
        console.print("no policy file is written; --write-nearest writes one", highlight=False)
    return reached
