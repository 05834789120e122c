"""Summary of a run on the terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from evaluation.lab.results.rows import Row
from evaluation.lab.terminal import arms_table


def print_summary(rows: Sequence[Row], arms: Sequence[str], console: Console) -> None:
    """Print a table with a row for each arm, and a warning for each arm with fallbacks or failures."""
    by_arm = {arm: [row for row in rows if row.arm == arm] for arm in arms}
    table = arms_table("questions", "accuracy", "no answer", "teacher tokens", "student tokens", "median s")
    for arm, of_arm in by_arm.items():
        table.add_row(escape(arm), *_cells(of_arm))
    console.print(table)
    console.print("tokens are each model's own output tokens for a question", style="dim")
    for arm, of_arm in by_arm.items():
        fallbacks = Counter(row.fallback for row in of_arm if row.fallback)
        if fallbacks:
            reasons = ", ".join(f"{reason} {count}" for reason, count in fallbacks.most_common())
            console.print(
                f"[yellow]{escape(arm)}: in {fallbacks.total()} of {len(of_arm)} answers the student had to go on without "
                f"the cloud ({reasons}), so this arm's figures are not valid. --retry-fallbacks asks them again[/yellow]",
                soft_wrap=True,
            )
        errors = [row.error for row in of_arm if row.error]
        if errors:
            console.print(
                f"[red]{escape(arm)}: {len(errors)} of {len(of_arm)} questions failed; the same command asks them again. "
                f"The first error: {escape(errors[0])}[/red]",
                soft_wrap=True,
            )


def _cells(rows: Sequence[Row]) -> list[str]:
    """Return an arm's cells; a dash if there are no rows to count."""
    answered = [row for row in rows if row.error is None]
    judged = [row for row in answered if row.correct is not None]
    times = [row.total_s for row in answered if row.total_s is not None]
    return [
        str(len(answered)),
        f"{100 * sum(row.correct is True for row in judged) / len(judged):.1f} %" if judged else "-",
        str(sum(row.extracted is None for row in judged)),
        f"{statistics.fmean(row.teacher.output for row in answered):.1f}" if answered else "-",
        f"{statistics.fmean(row.student.output for row in answered):.1f}" if answered else "-",
        f"{statistics.median(times):.2f}" if times else "-",
    ]
