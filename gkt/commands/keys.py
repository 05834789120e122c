"""`gkt keys`: who may call the cloud, and how much."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gkt.local.store import opened
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from cloud_teacher.auth.caller import Allowance
    from cloud_teacher.store.keys import Secret

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Who may call the cloud, and how much: make keys, list, revoke and rotate them.\n\n"
    "They are in the database of GKT_CLOUD_STORE_URL, which the cloud has to be set to as well. Every replica of it follows "
    "within two seconds. Keys of GKT_CLOUD_KEYS go on working, without limits of their own.",
)

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
NANO = 1_000_000_000

Name = Annotated[str, typer.Argument(help="The key's name.")]
Expires = Annotated[str | None, typer.Option(help="It ends after so long: 90d, 12h, 30m, 10s. Unset: never.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for logs, reports and the other commands, as `edge-17`.")],
    *,
    expires: Expires = None,
    weight: Annotated[float, typer.Option(min=0.01, help="Its share of a full cloud, beside the others'.")] = 1.0,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Lower goes first where the cloud is full.")] = 0,
    max_running: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Of prompts and guidance together.")] = None,
    daily_tokens: Annotated[int | None, typer.Option(min=1, help="The same in a day (UTC), never exceeded.")] = None,
    daily_usd: Annotated[
        float | None,
        typer.Option(min=0.000001, help="What it may cost in a day by the cloud's prices, never exceeded."),
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="It may see what all keys used.")] = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    Example: gkt keys create edge-17 --expires 90d --requests-per-minute 60 --daily-usd 2
    """
    from cloud_teacher.auth.caller import Allowance
    from cloud_teacher.store.keys import create as make

    allowance = Allowance(
        weight=weight,
        priority=priority,
        max_running=max_running,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        daily_tokens=daily_tokens,
        daily_nano_usd=None if daily_usd is None else round(daily_usd * NANO),
    )
    with opened() as engine:
        typer.echo(make(engine, name, allowance, operator=operator, lasts_ms=_ms(expires)))


@app.command("list")
def list_() -> None:
    """All keys, with their secrets as far as they may be shown."""
    from cloud_teacher.store.keys import every

    table = Table("name", "secret", "made", "ends", "limits", box=None, header_style="bold")
    with opened() as engine:
        for key in every(engine):
            limits = _limits(key.caller.allowance) + (["operator"] if key.caller.operator else [])
            for place, secret in enumerate(key.secrets):
                first = place == 0
                table.add_row(
                    key.caller.name if first else "",
                    f"gkt_{secret.id}_…",
                    _instant(secret.created_ms),
                    _ends(secret),
                    ", ".join(limits) if first else "",
                )
    Console().print(table)


@app.command()
def revoke(
    name: Name,
    *,
    secret: Annotated[
        str | None, typer.Option(help="Only this secret of it, as `gkt keys list` shows its beginning.")
    ] = None,
) -> None:
    """End a key now. Answers under way are still written to their end. Its name stays taken, and its usage known."""
    from cloud_teacher.store.keys import START
    from cloud_teacher.store.keys import revoke as end

    id_ = None if secret is None else secret.removeprefix(START).partition("_")[0]
    with opened() as engine:
        ended = end(engine, name, secret_id=id_)
    typer.echo(f"{name}: {ended} secret{'' if ended == 1 else 's'} ended")


@app.command()
def rotate(
    name: Name,
    *,
    grace_period: Annotated[str, typer.Option(help="How long the old secret stays valid; 0s revokes it now.")] = "1h",
    expires: Expires = None,
) -> None:
    """Give a key a new secret and show it, this once. Name, limits and what it used stay.

    Example: gkt keys rotate edge-17 --grace-period 24h
    """
    from cloud_teacher.store.keys import rotate as turn

    grace_period_ms = _ms(grace_period) or 0
    with opened() as engine:
        typer.echo(turn(engine, name, overlap_ms=grace_period_ms, lasts_ms=_ms(expires)))


def _ms(duration: str | None) -> int | None:
    if duration is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhd])", duration)
    if not match:
        raise ConfigurationError(f"{duration!r} is no duration: a whole number and s, m, h or d, as in 90d")
    return int(match[1]) * UNITS_S[match[2]] * 1000


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _ends(secret: Secret) -> str:
    if secret.revoked_ms is not None:
        return f"revoked {_instant(secret.revoked_ms)}"
    return "" if secret.expires_ms is None else _instant(secret.expires_ms)


def _limits(allowance: Allowance) -> list[str]:
    budget = allowance.daily_nano_usd
    told = {
        "weight": None if allowance.weight == 1 else f"{allowance.weight:g}",
        "priority": allowance.priority or None,
        "running": allowance.max_running,
        "requests/min": allowance.requests_per_minute,
        "tokens/min": allowance.tokens_per_minute,
        "tokens/day": allowance.daily_tokens,
        "$/day": None if budget is None else f"{budget / NANO:g}",
    }
    return [f"{name} {value}" for name, value in told.items() if value is not None]
