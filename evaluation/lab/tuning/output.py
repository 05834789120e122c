"""The tuner's output on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from evaluation.lab.analysis.arm_summary import summarise
from evaluation.lab.arm_names import TEACHER
from evaluation.lab.arms import Arm
from evaluation.lab.report.formatting import UNKNOWN, percent, percent_in
from evaluation.lab.results.rows import Row, verdicts
from evaluation.lab.terminal import arms_table
from evaluation.lab.tuning import racing
from evaluation.lab.tuning.tuner import Stage, Tuner
from shared.policy_file import Evidence


class Report:
    """Prints the parts of a search as they come."""

    def __init__(self, tuner: Tuner, console: Console) -> None:
        self._tuner = tuner
        self._console = console
        self._keep = percent(tuner.spec.keep)

    def say(self, text: str) -> None:
        """Print a line. `text` may hold markup; names in it must be escaped."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def stage(self, stage: Stage) -> None:
        """Print the table of a stage, its time, and an estimate for the rest."""
        self.say(f"\n[bold]stage {stage.number} of {stage.of}[/bold]: {stage.questions} questions so far")
        self._table(stage.rows, stage.dropped)
        left = (
            "" if stage.left_s is None else f"; the rest, with the reporting lines, takes at most {_time(stage.left_s)}"
        )
        self.say(f"took {_time(stage.seconds)}{left}")

    def choice(self, chosen: racing.Candidate | None) -> None:
        """Print the result on the tuning lines."""
        if chosen is None:
            self.say(f"\n[yellow]no arm that costs less than the teacher keeps {self._keep} of its accuracy[/yellow]")
            return
        doubt = "" if chosen.shown else "; this is the estimate only: the tuning questions are too few to show it"
        arm = Arm.parse(chosen.arm).with_rollout(chosen.rollout_fraction).text
        self.say(
            f"\n[bold]{escape(arm)}[/bold] is the cheapest that keeps {self._keep} of the teacher's accuracy: "
            f"it keeps {_kept(chosen.retention)}{doubt}"
        )

    def best_effort(self, candidate: racing.Candidate | None) -> None:
        """Print the arm that keeps most, for which no file is written."""
        if candidate is None:
            self.say("there is no candidate: no arm costs less than the teacher, or the teacher is never right")
            return
        amount = self._tuner.amount()
        whole = racing.mean_amount(racing.valid_rows(self._tuner.all_rows)[TEACHER], amount)
        share = percent(candidate.cost / whole) if whole else UNKNOWN
        unit = "output tokens" if self._tuner.spec.minimize == "tokens" else "cost"
        self.say(
            f"the best effort is [bold]{escape(candidate.arm)}[/bold]: it keeps {_kept(candidate.retention)}, for {share} of "
            f"the teacher's {unit}. No policy file is written; --write-best-effort writes one"
        )

    def evidence(self, found: Evidence, rows: Sequence[Row]) -> None:
        """Print the result on the reporting lines."""
        self.say(f"\n[bold]reporting lines {found.reporting_lines}[/bold]")
        self._table(rows, {})
        if found.shown:
            result = f"that is at least the {self._keep} asked for"
        elif found.kept_share >= found.keep:
            result = f"the estimate is above the {self._keep} asked for, its bound is not"
        else:
            result = f"[yellow]the reporting questions do not confirm the {self._keep} asked for[/yellow]"
        self.say(
            f"it keeps {percent(found.kept_share)} of the teacher's accuracy (at least {percent(found.kept_share_low)}, "
            f"one-sided, 95 %), for {percent(found.teacher_token_share)} of its output tokens "
            f"and {percent(found.cost_share)} of its cost; {result}"
        )

    def _table(self, rows: Sequence[Row], dropped: Mapping[str, str]) -> None:
        arms = racing.valid_rows(rows)
        table = arms_table("n", "accuracy [95 %]", "keeps", "at least", "teacher tokens", "cost")
        table.add_column("")
        valid = [row for of_arm in arms.values() for row in of_arm.values()]
        for arm in (arm for task in summarise(valid, self._tuner.prices()) for arm in task.arms):
            # The teacher keeps all of its own accuracy, which needs no data.
            measured = arm.arm != TEACHER and TEACHER in arms
            kept = racing.retention(*verdicts(arms, arm.arm, TEACHER)) if measured else None
            table.add_row(
                escape(arm.arm),
                str(arm.n),
                percent_in(arm.accuracy, arm.interval),
                percent(kept.value) if kept else UNKNOWN,
                percent(kept.low) if kept else UNKNOWN,
                percent(arm.teacher_token_share),
                percent(arm.cost_share),
                f"dropped: {escape(dropped[arm.arm])}" if arm.arm in dropped else "",
            )
        self._console.print(table)
        self._console.print(
            "keeps: part of the teacher's accuracy; at least: its bound, one-sided, 95 %; tokens and cost: part of the "
            "teacher's alone",
            style="dim",
        )


def _kept(kept: racing.Retention) -> str:
    return f"{percent(kept.value)} (at least {percent(kept.low)}, one-sided, 95 %, {kept.n} questions)"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
