"""`gkt usage`: what was used of the cloud, from its ledger."""

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
    key: Annotated[str | None, typer.Option(help="Of this key only.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=DATE, help="From this day on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=DATE, help="Up to this day, which is included.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one object a line.")] = False,
) -> None:
    """What was used of the cloud, by key and day, from the ledger in the database of GKT_CLOUD_STORE_URL.

    Example: gkt usage --key edge-17 --since 2026-11-01
    """
    from cloud_teacher.store.rows import usage as read

    with opened() as engine:
        days = read(engine, key=key, since=since.date() if since else None, until=until.date() if until else None)
    told = [day.wire() for day in days]
    if as_json:
        for day in told:
            typer.echo(json.dumps(day.model_dump(mode="json")))
        return
    table = Table("day", "key", box=None, header_style="bold")
    for column in ("requests", "prompt", "of it cached", "guidance", "told again", "$"):
        table.add_column(column, justify="right")
    for day in told:
        numbers = (day.requests, day.prompt_tokens, day.cached_tokens, day.completion_tokens, day.reused_tokens)
        table.add_row(day.day.isoformat(), day.key, *(f"{number:,}" for number in numbers), f"{day.cost_usd:.6f}")
    Console().print(table if told else f"nothing was used, as of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
