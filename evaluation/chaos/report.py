"""Output of a run: figures as data and as a table, and the log of violations."""

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

from evaluation.chaos.faults import ChaosFault
from evaluation.chaos.invariants import Invariant
from evaluation.chaos.run import RunResult

MAX_SHOWN = 10
"""Violations in the terminal. The log has all."""


def figures(result: RunResult, models: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures for `--json`. `models` are the services' models."""
    kinds = Counter(judged.kind for judged in result.judged)
    broken = Counter(violation.invariant for violation in result.violations)
    faults = {kind: result.injected.counts[kind] for kind in ChaosFault if result.injected.counts[kind]}
    recovered = list(result.recovered_s.values())
    return {
        "requests": len(result.judged),
        "faults": faults | {"client_vanished": kinds["vanished"], "client_never_read": kinds["never_read"]},
        "degraded": kinds["degraded"],
        "lost": broken[Invariant.LOST],
        "mixed": broken[Invariant.MIXED],
        "recovered_s": None if None in recovered else max(s for s in recovered if s is not None),
        "recovery_limit_s": result.recovery_limit_s,
        "whole": kinds["whole"],
        "errors": dict(Counter(judged.error for judged in result.judged if judged.error)),
        "edge_was_away": kinds["away"],
        "fallbacks": dict(Counter(judged.fallback for judged in result.judged if judged.fallback).most_common()),
        "violations": {invariant: broken[invariant] for invariant in Invariant},
        "idle": {name: {"before": asdict(a), "after": asdict(b)} for name, (a, b) in result.usage.items()},
        "load_s": round(result.load_s, 1),
        "seed": result.config.seed,
        "models": dict(models),
    }


def show(result: RunResult, models: Mapping[str, str], console: Console) -> None:
    """Print the figures and the first violations."""
    numbers = figures(result, models)
    table = Table("figure", box=None, header_style="bold", pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("target", justify="right")
    table.add_column("", style="dim")
    table.add_row("requests", str(numbers["requests"]), "", f"in {result.load_s:.0f} s, seed {result.config.seed}")
    for kind, count in numbers["faults"].items():
        table.add_row(f"  {kind}", str(count), "", "")
    table.add_row("whole", str(numbers["whole"]), "", "answers with all the guidance that was requested")
    table.add_row("degraded", str(numbers["degraded"]), "", _listed(numbers["fallbacks"]))
    table.add_row("errors", str(sum(numbers["errors"].values())), "", _listed(numbers["errors"]))
    table.add_row("edge_was_away", str(numbers["edge_was_away"]), "", "requests whose edge was killed")
    for invariant, count in numbers["violations"].items():
        colour = "red" if count else "green"
        if invariant is Invariant.RECOVERED:
            seconds = numbers["recovered_s"]
            value, target = "never" if seconds is None else f"{seconds:.2f}", f"≤ {result.recovery_limit_s:g}"
            recovered = ("recovered_s", f"[{colour}]{value}[/{colour}]", target, "after the last fault")
        else:
            table.add_row(invariant, f"[{colour}]{count}[/{colour}]", "0", "")
    table.add_row(*recovered)
    console.print(table)
    console.print(escape(", ".join(f"{name}: {model}" for name, model in models.items())), soft_wrap=True)
    for violation in result.violations[:MAX_SHOWN]:
        number = f"request {violation.response.request.number}: " if violation.response else ""
        console.print(f"[red]{violation.invariant}[/red] {escape(number + violation.what)}", soft_wrap=True)
    if len(result.violations) > MAX_SHOWN:
        console.print(f"and {len(result.violations) - MAX_SHOWN} more")


def write_log(result: RunResult, path: Path) -> None:
    """Write all faults, and all violations with their requests and responses, as one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for at_s, fault in result.injected.log:
            file.write(json.dumps({"at_s": round(at_s - result.began_s, 3), "fault": fault}) + "\n")
        for violation in result.violations:
            entry: dict[str, Any] = {"invariant": violation.invariant, "what": violation.what}
            if response := violation.response:
                entry |= {
                    "request": {**asdict(response.request), "body": response.request.body},
                    "sent_s": round(response.sent_s - result.began_s, 3),
                    "ended_s": round(response.ended_s - result.began_s, 3),
                    "status": response.status,
                    "connection_error": response.connection_error,
                    "answer": response.body.decode(errors="replace"),
                }
            file.write(json.dumps(entry | {"seed": result.config.seed}, ensure_ascii=False) + "\n")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
