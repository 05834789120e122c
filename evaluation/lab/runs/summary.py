"""What a run says on the terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from evaluation.lab.results.rows import Row
from evaluation.lab.terminal import arms_table


def summary(rows: Sequence[Row], arms: Sequence[str], console: Console) -> None:
    """A table with a line an arm, and a warning for each that is not what it seems."""
    table = arms_table("questions", "accuracy", "no answer", "teacher tokens", "student tokens", "median s")
    for arm in arms:
        table.add_row(escape(arm), *_figures([row for row in rows if row.arm == arm]))
    console.print(table)
    console.print("tokens are each side's own output tokens a question", style="dim")
    for arm in arms:
        of_arm = [row for row in rows if row.arm == arm]
        fallbacks = Counter(row.fallback for row in of_arm if row.fallback)
        if fallbacks:
            why = ", ".join(f"{reason} {count}" for reason, count in fallbacks.most_common())
            console.print(
                f"[yellow]{escape(arm)}: in {fallbacks.total()} of {len(of_arm)} answers the student had to go on without "
                f"the cloud ({why}): this arm's figures are worth nothing. --retry-fallbacks asks them again[/yellow]",
                soft_wrap=True,
            )
        errors = [row.error for row in of_arm if row.error]
        if errors:
            console.print(
                f"[red]{escape(arm)}: {len(errors)} of {len(of_arm)} questions failed; the same command asks them again. "
                f"The first: {escape(errors[0])}[/red]",
                soft_wrap=True,
            )


def _figures(rows: Sequence[Row]) -> list[str]:
    """Columns of an arm. A dash stands where there is nothing to count."""
    answered = [row for row in rows if row.error is None]
    told = [row for row in answered if row.correct is not None]
    right = sum(row.correct is True for row in told)
    times = [row.total_s for row in answered if row.total_s is not None]
    return [
        str(len(answered)),
        f"{100 * right / len(told):.1f} %" if told else "-",
        str(sum(row.extracted is None for row in told)),
        f"{statistics.fmean(row.teacher.output for row in answered):.1f}" if answered else "-",
        f"{statistics.fmean(row.student.output for row in answered):.1f}" if answered else "-",
        f"{statistics.median(times):.2f}" if times else "-",
    ]
