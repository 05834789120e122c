"""What a tuner says on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from evaluation.lab.analysis.arm_summary import summarise
from evaluation.lab.analysis.price_table import PriceTable
from evaluation.lab.arm_names import TEACHER
from evaluation.lab.arms import Arm
from evaluation.lab.report.formatting import UNKNOWN, percent, percent_in
from evaluation.lab.results.rows import Row, verdicts
from evaluation.lab.terminal import arms_table
from evaluation.lab.tuning import racing
from evaluation.lab.tuning.tuner import Stage, Tuner
from shared.policy_file import PolicyFile


def stage(ended: Stage, tuner: Tuner, console: Console) -> None:
    """The table of a stage, the time it took, and what the rest takes at most."""
    console.print(
        f"\n[bold]stage {ended.number} of {ended.of}[/bold]: {ended.questions} questions so far", highlight=False
    )
    _table(ended.rows, ended.dropped, tuner, console)
    left = "" if ended.left_s is None else f"; the rest, reporting lines included: {_duration(ended.left_s)} at most"
    console.print(f"took {_duration(ended.seconds)}{left}", highlight=False, soft_wrap=True)


def choice(chosen: racing.Choice | None, tuner: Tuner, console: Console) -> None:
    """What the tuning lines say."""
    if chosen is None:
        console.print(
            f"\n[yellow]nothing that costs less than the teacher keeps {percent(tuner.keep)} of its accuracy[/yellow]",
            highlight=False,
            soft_wrap=True,
        )
        return
    doubt = "" if chosen.shown else "; the tuning questions are too few to show that, it is the estimate only"
    arm = Arm.parse(chosen.arm).for_share(chosen.share).text
    console.print(
        f"\n[bold]{escape(arm)}[/bold] is the cheapest that keeps {percent(tuner.keep)} of the teacher's accuracy: "
        f"it keeps {_kept(chosen.kept)}{doubt}",
        highlight=False,
        soft_wrap=True,
    )


def nearest(close: racing.Choice | None, tuner: Tuner, console: Console) -> None:
    """What comes next to what was asked for; no file is written of it."""
    if close is None:
        console.print("nothing comes near: no arm costs less than the teacher, or the teacher is never right")
        return
    share = racing.mean_amount(racing.sound(tuner.all_rows)[TEACHER], tuner.amount())
    of = percent(close.cost / share) if share else UNKNOWN
    what = "output tokens" if tuner.by == "tokens" else "cost"
    console.print(
        f"what comes nearest is [bold]{escape(close.arm)}[/bold]: it keeps {_kept(close.kept)}, for {of} of the "
        f"teacher's {what}. No policy file is written; --write-nearest writes one",
        highlight=False,
        soft_wrap=True,
    )


def evidence(policy: PolicyFile, tuner: Tuner, rows: Sequence[Row], console: Console) -> None:
    """What the reporting lines say."""
    found = policy.evidence
    assert found is not None  # noqa: S101 - the tuner's own
    console.print(f"\n[bold]reporting lines {found.reporting_lines}[/bold]", highlight=False)
    _table(rows, {}, tuner, console)
    if found.shown:
        said = f"that is at least {percent(found.keep)}, as was asked for"
    elif found.kept_share >= found.keep:
        said = f"{percent(found.keep)} was asked for: the estimate is above that, its bound is not"
    else:
        said = f"[yellow]{percent(found.keep)} was asked for: the reporting questions do not bear it out[/yellow]"
    console.print(
        f"it keeps {percent(found.kept_share)} of the teacher's accuracy (at least {percent(found.kept_share_low)}, "
        f"one-sided, 95 %), for {percent(found.teacher_token_share)} of its output tokens "
        f"and {percent(found.cost_share)} of its cost; {said}",
        highlight=False,
        soft_wrap=True,
    )


def flat(table: PriceTable) -> dict[str, float]:
    """All prices of a table, by model and kind."""
    return {
        f"{model} {kind}": float(value)
        for model, entry in table.root.items()
        for kind, value in entry.model_dump().items()
    }


def _table(rows: Sequence[Row], why: Mapping[str, str], tuner: Tuner, console: Console) -> None:
    arms = racing.sound(rows)
    table = arms_table("n", "accuracy [95 %]", "keeps", "at least", "teacher tokens", "cost")
    table.add_column("")
    sound = [row for of_arm in arms.values() for row in of_arm.values()]
    for arm in (arm for task in summarise(sound, tuner.prices()) for arm in task.arms):
        measured = (
            arm.arm != TEACHER and TEACHER in arms
        )  # of itself the teacher keeps all, and no data are needed for that
        kept = racing.kept_share(*verdicts(arms, arm.arm, TEACHER)) if measured else None
        table.add_row(
            escape(arm.arm),
            str(arm.n),
            percent_in(arm.accuracy, arm.interval),
            percent(kept.value) if kept else UNKNOWN,
            percent(kept.low) if kept else UNKNOWN,
            percent(arm.teacher_token_share),
            percent(arm.cost_share),
            f"dropped: {escape(why[arm.arm])}" if arm.arm in why else "",
        )
    console.print(table)
    console.print(
        "keeps: of the teacher's accuracy, at least: one-sided, 95 %; tokens and cost: of the teacher alone",
        style="dim",
    )


def _kept(kept: racing.Kept) -> str:
    return f"{percent(kept.value)} (at least {percent(kept.low)}, one-sided, 95 %, {kept.n} questions)"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
