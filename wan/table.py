"""Links as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wan.link.faults import Fault
from wan.link.messages import LinkState


def table(states: Sequence[LinkState]) -> Table:
    result = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("link", "at", "to", "profile"):
        result.add_column(heading)
    for heading in ("round trip", "up", "down"):
        result.add_column(heading, justify="right")
    result.add_column("fault")
    for heading in ("bytes up", "bytes down", "connections"):
        result.add_column(heading, justify="right")
    for state in states:
        conditions = state.conditions
        jitter = f" +{conditions.jitter_ms:g}" if conditions.jitter_ms else ""
        result.add_row(
            state.name,
            state.listens,
            state.to,
            state.profile or "",
            f"{conditions.latency_ms:g}{jitter} ms",
            bandwidth(conditions.up_kbit),
            bandwidth(conditions.down_kbit),
            _fault(state),
            f"{state.bytes_up:,}",
            f"{state.bytes_down:,}",
            f"{state.live} of {state.opened}",
        )
    return result


def bandwidth(kbit: float | None) -> str:
    if kbit is None:
        return ""
    return f"{kbit / 1000:g} mbit" if kbit >= 1000 else f"{kbit:g} kbit"


def _fault(state: LinkState) -> str:
    if state.armed:
        return f"[yellow]{state.armed.kind} in {state.armed.after_bytes:,} bytes[/yellow]"
    if state.fault:
        return f"[red]{state.fault.kind}{_way(state.fault)}[/red]"
    return "[yellow]stalled[/yellow]" if state.stalled else ""


def _way(fault: Fault) -> str:
    return "" if fault.direction == "both" else f" {fault.direction}"
