"""What a run prints, and its figures as data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.chaos.faults import FaultKind
from evaluation.chaos.invariants import Invariant
from evaluation.chaos.run import Ran

SHOWN = 10
"""Violations in the terminal; the log has all."""


def figures(ran: Ran, who: Mapping[str, str]) -> dict[str, Any]:
    """For `--json`. `who` says which model each service has."""
    ends = Counter(judged.kind for judged in ran.judged)
    broken = Counter(violation.invariant for violation in ran.violations)
    back = list(ran.recovered_s.values())
    return {
        "requests": len(ran.judged),
        "faults": {kind: ran.strikes.counts[kind] for kind in FaultKind if ran.strikes.counts[kind]}
        | {"client_vanished": ends["vanished"], "client_never_read": ends["never_read"]},
        "degraded": ends["degraded"],
        "lost": broken[Invariant.LOST],
        "mixed": broken[Invariant.MIXED],
        "recovered_s": None if None in back else max(s for s in back if s is not None),
        "recovery_limit_s": ran.recovery_limit_s,
        "whole": ends["whole"],
        "errors": dict(Counter(judged.error for judged in ran.judged if judged.error)),
        "edge_was_away": ends["away"],
        "fallbacks": _fallbacks(ran),
        "violations": {invariant: broken[invariant] for invariant in Invariant},
        "idle": {name: {"before": asdict(a), "after": asdict(b)} for name, (a, b) in ran.idle.items()},
        "load_s": round(ran.load_s, 1),
        "seed": ran.plan.seed,
        "models": dict(who),
    }


def show(ran: Ran, who: Mapping[str, str], console: Console) -> None:
    """The table, and the first violations."""
    numbers = figures(ran, who)
    table = Table("figure", box=None, header_style="bold", pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("asked", justify="right")
    table.add_column("", style="dim")
    table.add_row("requests", str(numbers["requests"]), "", f"in {ran.load_s:.0f} s, seed {ran.plan.seed}")
    for kind, count in numbers["faults"].items():
        table.add_row(f"  {kind}", str(count), "", "")
    table.add_row("whole", str(numbers["whole"]), "", "answers with all that was asked of the teacher")
    table.add_row("degraded", str(numbers["degraded"]), "", _listed(numbers["fallbacks"]))
    table.add_row("errors", str(sum(numbers["errors"].values())), "", _listed(numbers["errors"]))
    table.add_row("edge_was_away", str(numbers["edge_was_away"]), "", "killed while they ran")
    for invariant in Invariant:
        count = numbers["violations"][invariant]
        if invariant is Invariant.RECOVERED:
            continue
        colour = "red" if count else "green"
        table.add_row(invariant, f"[{colour}]{count}[/{colour}]", "0", "")
    seconds = numbers["recovered_s"]
    colour = "red" if numbers["violations"][Invariant.RECOVERED] else "green"
    value = "never" if seconds is None else f"{seconds:.2f}"
    table.add_row("recovered_s", f"[{colour}]{value}[/{colour}]", f"≤ {ran.recovery_limit_s:g}", "after the last fault")
    console.print(table)
    console.print(escape(", ".join(f"{name}: {model}" for name, model in who.items())), soft_wrap=True)
    for violation in ran.violations[:SHOWN]:
        number = f"request {violation.outcome.ask.number}: " if violation.outcome else ""
        console.print(f"[red]{violation.invariant}[/red] {escape(number + violation.what)}", soft_wrap=True)
    if len(ran.violations) > SHOWN:
        console.print(f"and {len(ran.violations) - SHOWN} more")


def write_log(ran: Ran, path: Path) -> None:
    """All violations, each with its request, what came of it and when what struck; a JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for at_s, what in ran.strikes.log:
            file.write(json.dumps({"at_s": round(at_s - ran.began_s, 3), "struck": what}) + "\n")
        for violation in ran.violations:
            entry: dict[str, Any] = {"invariant": violation.invariant, "what": violation.what, "seed": ran.plan.seed}
            if violation.outcome:
                outcome = violation.outcome
                entry |= {
                    "request": {**asdict(outcome.ask), "body": outcome.ask.body},
                    "sent_s": round(outcome.sent_s - ran.began_s, 3),
                    "ended_s": round(outcome.ended_s - ran.began_s, 3),
                    "status": outcome.status,
                    "broke": outcome.broke,
                    "answer": outcome.body.decode(errors="replace"),
                }
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _fallbacks(ran: Ran) -> dict[str, int]:
    return dict(Counter(judged.fallback for judged in ran.judged if judged.fallback).most_common())


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
