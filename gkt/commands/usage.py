"""`gkt usage`: report the cloud's usage from its ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gkt.local.store import opened

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

DATE = ["%Y-%m-%d"]


@app.command()
def usage(
    *,
    key: Annotated[str | None, typer.Option(help="Show only this key's usage.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=DATE, help="First day (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=DATE, help="Last day (UTC), included.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """Report the cloud's usage by key and day, from the ledger in the database of GKT_CLOUD_STORE_URL.

    Example: gkt usage --key edge-17 --since 2026-11-01
    """
    from cloud_teacher.store.rows import usage as read

    with opened() as engine:
        days = read(engine, key=key, since=since.date() if since else None, until=until.date() if until else None)
    rows = [day.to_wire() for day in days]
    if as_json:
        for day in rows:
            typer.echo(json.dumps(day.model_dump(mode="json")))
        return
    table = Table("day", "key", box=None, header_style="bold")
    for column in ("requests", "prompt", "cached", "guidance", "reused", "$"):
        table.add_column(column, justify="right")
    for day in rows:
        numbers = (day.requests, day.prompt_tokens, day.cached_tokens, day.completion_tokens, day.reused_tokens)
        table.add_row(day.day.isoformat(), day.key, *(f"{number:,}" for number in numbers), f"{day.cost_usd:.6f}")
    Console().print(table if rows else f"no usage, as of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
