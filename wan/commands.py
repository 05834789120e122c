"""`gkt wan`: start a wide-area link, and change it while it runs."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from shared.errors import ConfigurationError
from wan.control import Control
from wan.link.faults import Direction
from wan.link.messages import Links, LinkState
from wan.link.units import Address, BadUnit, address

app = typer.Typer(
    name="wan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A wide-area link in user space: a TCP proxy that can be made slow, lossy or dead while requests run.\n\n"
    "`gkt wan serve` starts it; every other command changes one that runs, at --control, for one link or, without a name, for "
    "all. Changes hold at once, for connections that live too.",
)

GRACE_S = 2

ControlUrl = Annotated[
    str, typer.Option("--control", envvar="GKT_WAN_CONTROL", help="Base URL of the control API of the link.")
]
Name = Annotated[str | None, typer.Argument(help="A link's name; without it, every link.", show_default=False)]
Way = Annotated[Direction, typer.Option("--direction", help="up is to the cloud.")]
After = Annotated[
    int | None,
    typer.Option("--after", min=0, help="Begin once exactly so many bytes more have passed in that direction."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the control API's JSON.")]
LOCAL = "http://127.0.0.1:9000"


@app.command()
def serve(
    *,
    link: Annotated[
        list[str],
        typer.Option(
            help="NAME=HOST:PORT or NAME=PORT: a link and where clients reach it; may be given several times."
        ),
    ],
    to: Annotated[str, typer.Option(help="HOST:PORT of the target, which is looked up for each connection.")],
    control: Annotated[str, typer.Option(help="HOST:PORT or PORT of the control API.")] = "127.0.0.1:9000",
    profile: Annotated[str | None, typer.Option(help="Profile that every link begins with.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a profile that changes.")] = 0,
    port_file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the control API's port here once everything listens.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Start links and their control API, until Ctrl-C or SIGTERM. They begin as fast as the machine, or with --profile.

    A port alone is on 127.0.0.1. Port 0 takes a free one, which the log and `gkt wan show` tell. The control API asks for no
    key: have it listen on loopback or in a private network only.

    Example: gkt wan serve --link edge-a=9001 --to 127.0.0.1:8080 --profile 4g
    """
    from shared.server.run import serve as serve_app
    from wan.app import create_app
    from wan.network import Wan

    where = address(control)
    wan = Wan(_links(link), to=_target(to))
    if profile is not None:
        wan.begin_with(profile, seed=seed)
    if log_level not in {"debug", "info", "warning", "error"}:
        raise ConfigurationError("--log-level: debug, info, warning or error")
    signal.signal(signal.SIGTERM, _leave)  # which uvicorn raises again once all is closed
    raise typer.Exit(
        serve_app(
            lambda fail: create_app(wan, fail=fail),
            host=where.host,
            port=where.port,
            grace_s=GRACE_S,
            log_level=log_level,
            port_file=str(port_file) if port_file else None,
        )
    )


@app.command("set")
def set_conditions(
    link: Name = None,
    *,
    latency: Annotated[str | None, typer.Option(help="Of the ROUND TRIP, as 80ms or 0.6s; each way has half.")] = None,
    jitter: Annotated[str | None, typer.Option(help="Up to so much more of the round trip, as 20ms.")] = None,
    bandwidth: Annotated[str | None, typer.Option(help="Both ways, as 500kbit, 2mbit or unlimited.")] = None,
    up: Annotated[str | None, typer.Option(help="Bandwidth to the cloud.")] = None,
    down: Annotated[str | None, typer.Option(help="Bandwidth from the cloud.")] = None,
    control: ControlUrl = LOCAL,
) -> None:
    """Change latency, jitter or bandwidth; what is not given stays. Ends a profile, and leaves faults alone.

    Example: gkt wan set --latency 80ms --bandwidth 2mbit edge-a
    """
    with Control(control) as client:
        for state in _chosen(client, link):
            changed = state.conditions.but(latency=latency, jitter=jitter, bandwidth=bandwidth, up=up, down=down)
            client.become(state.name, changed)


@app.command()
def cut(link: Name = None, *, direction: Way = "both", after: After = None, control: ControlUrl = LOCAL) -> None:
    """Close every live connection, what is under way lost, and refuse new ones, until `resume`."""
    _do(control, link, "cut", direction=direction, after_bytes=after)


@app.command()
def stall(link: Name = None, *, direction: Way = "both", after: After = None, control: ControlUrl = LOCAL) -> None:
    """Let no byte pass and tell nobody, until `resume`: then they pass, and nothing is lost."""
    _do(control, link, "stall", direction=direction, after_bytes=after)


@app.command()
def reset(link: Name = None, *, direction: Way = "both", after: After = None, control: ControlUrl = LOCAL) -> None:
    """Reset every live connection (RST). New ones are served."""
    _do(control, link, "reset", direction=direction, after_bytes=after)


@app.command()
def refuse(link: Name = None, *, control: ControlUrl = LOCAL) -> None:
    """Refuse new connections, until `resume`. Those that live go on."""
    _do(control, link, "refuse")


@app.command()
def corrupt(
    link: Name = None,
    *,
    rate: Annotated[float, typer.Option(help="Of all bytes, so many have a bit flipped, more than 0 to 1.")] = 0.001,
    seed: Annotated[int, typer.Option(min=0, help="The same seed flips the same bits.")] = 0,
    direction: Way = "both",
    after: After = None,
    control: ControlUrl = LOCAL,
) -> None:
    """Flip bits, until `resume`."""
    _do(control, link, "corrupt", rate=rate, seed=seed, direction=direction, after_bytes=after)


@app.command()
def resume(link: Name = None, *, control: ControlUrl = LOCAL) -> None:
    """Take every fault back. Latency and bandwidth stay."""
    _do(control, link, "resume")


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="fibre, 4g, train, satellite or offline.")],
    link: Name = None,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Of a profile that changes: the same seed, the same changes.")] = 0,
    control: ControlUrl = LOCAL,
) -> None:
    """Be like a named profile: its latency, jitter and bandwidth, and no fault but its own.

    Example: gkt wan profile train edge-a
    """
    _do(control, link, "profile", name=name, seed=seed)


@app.command()
def show(link: Name = None, *, as_json: AsJson = False, control: ControlUrl = LOCAL) -> None:
    """Show links: their conditions and faults, and what they have carried."""
    with Control(control) as client:
        states = _chosen(client, link)
    if as_json:
        typer.echo(Links(links=states).model_dump_json(indent=2))
        return
    from wan.table import table

    Console().print(table(states))


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _do(control: str, link: str | None, action: str, **options: Any) -> None:
    with Control(control) as client:
        for state in _chosen(client, link):
            client.do(state.name, action, **options)


def _chosen(client: Control, link: str | None) -> list[LinkState]:
    return client.links() if link is None else [client.link(link)]


def _links(options: list[str]) -> dict[str, Address]:
    links: dict[str, Address] = {}
    for option in options:
        name, equals, where = option.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
            raise BadUnit(
                f"--link {option}: a link is NAME=HOST:PORT or NAME=PORT, its name of letters, digits and .-_"
            )
        if name in links:
            raise BadUnit(f"--link {option}: there are two links of this name")
        links[name] = address(where)
    return links


def _target(to: str) -> Address:
    target = address(to)
    if not target.port:
        raise BadUnit(f"--to {to}: a target has a port")
    return target
