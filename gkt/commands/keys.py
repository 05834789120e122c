"""`gkt keys`: manage the cloud's API keys and their limits."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cloud_teacher.auth.caller import Role
from gkt.local.store import opened
from shared.errors import ConfigurationError
from shared.prices import NANO

if TYPE_CHECKING:
    from cloud_teacher.auth.caller import Allowance
    from cloud_teacher.store.keys import Secret

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Create, list, revoke and rotate the cloud's API keys, with their limits.\n\n"
    "Keys are in the database of GKT_CLOUD_STORE_URL, which the cloud must use too. Every replica follows within two seconds. "
    "Keys in GKT_CLOUD_KEYS work too, without limits.",
)

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Name = Annotated[str, typer.Argument(help="Name of the key.")]
Expires = Annotated[str | None, typer.Option(help="Time until the key expires: 90d, 12h, 30m, 10s. If unset, never.")]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Name of the key in logs, reports and the other commands, such as `edge-17`.")
    ],
    *,
    expires: Expires = None,
    weight: Annotated[
        float, typer.Option(min=0.01, help="Weight of the key in a full cloud, relative to other keys.")
    ] = 1.0,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Priority in a full cloud; lower goes first.")] = 0,
    max_running: Annotated[int | None, typer.Option(min=1, help="Maximum concurrent requests.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Maximum requests per minute.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens per minute, prompts and guidance together.")
    ] = None,
    daily_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens per day (UTC), never exceeded.")
    ] = None,
    daily_usd: Annotated[
        float | None,
        typer.Option(min=0.000001, help="Maximum cost per day (UTC) by the cloud's prices, never exceeded."),
    ] = None,
    role: Annotated[
        Role,
        typer.Option(
            help="viewer: read the registry. editor: push versions and move labels. operator: move protected labels too, "
            "and read the usage of all keys."
        ),
    ] = Role.VIEWER,
) -> None:
    """Create a key and print it once; the database keeps only its hash.

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
        typer.echo(make(engine, name, allowance, role=role, lifetime_ms=_ms(expires)))


@app.command("list")
def list_() -> None:
    """List all keys, with the public part of their secrets."""
    from cloud_teacher.store.keys import list_keys

    table = Table("name", "secret", "created", "expires", "limits", box=None, header_style="bold")
    with opened() as engine:
        for key in list_keys(engine):
            limits = _limits(key.caller.allowance) + ([] if key.caller.role is Role.VIEWER else [key.caller.role.value])
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
        str | None,
        typer.Option(help="Secret to revoke, by its beginning in `gkt keys list`. If unset, all secrets of the key."),
    ] = None,
) -> None:
    """Revoke a key now. Running answers are completed. The name stays reserved, and the usage is kept."""
    from cloud_teacher.store.keys import PREFIX
    from cloud_teacher.store.keys import revoke as end

    id_ = None if secret is None else secret.removeprefix(PREFIX).partition("_")[0]
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
    """Give a key a new secret and print it once. Name, limits and usage stay.

    Example: gkt keys rotate edge-17 --grace-period 24h
    """
    from cloud_teacher.store.keys import rotate as turn

    grace_period_ms = _ms(grace_period) or 0
    with opened() as engine:
        typer.echo(turn(engine, name, grace_ms=grace_period_ms, lifetime_ms=_ms(expires)))


def _ms(duration: str | None) -> int | None:
    if duration is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhd])", duration)
    if not match:
        raise ConfigurationError(
            f"{duration!r} is not a duration: expected a whole number and s, m, h or d, such as 90d"
        )
    return int(match[1]) * UNITS_S[match[2]] * 1000


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _ends(secret: Secret) -> str:
    if secret.revoked_ms is not None:
        return f"revoked {_instant(secret.revoked_ms)}"
    return "" if secret.expires_ms is None else _instant(secret.expires_ms)


def _limits(allowance: Allowance) -> list[str]:
    budget = allowance.daily_nano_usd
    limits = {
        "weight": None if allowance.weight == 1 else f"{allowance.weight:g}",
        "priority": allowance.priority or None,
        "running": allowance.max_running,
        "requests/min": allowance.requests_per_minute,
        "tokens/min": allowance.tokens_per_minute,
        "tokens/day": allowance.daily_tokens,
        "$/day": None if budget is None else f"{budget / NANO:g}",
    }
    return [f"{name} {value}" for name, value in limits.items() if value is not None]
