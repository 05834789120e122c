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
    help="Emulate a wide-area link in user space: a TCP proxy that can be slow, lossy or dead while requests run.\n\n"
    "`gkt wan serve` starts it. Every other command changes the running one at --control: one link, or all links if no name is "
    "given. Changes apply at once, to live connections too.",
)

GRACE_S = 2

ControlUrl = Annotated[str, typer.Option("--control", envvar="GKT_WAN_CONTROL", help="Base URL of the control API.")]
Name = Annotated[str | None, typer.Argument(help="Name of the link. If unset, every link.", show_default=False)]
Way = Annotated[Direction, typer.Option("--direction", help="Direction of the fault: up is to the cloud.")]
After = Annotated[
    int | None,
    typer.Option("--after", min=0, help="Bytes that pass in that direction before the fault starts."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the control API's JSON.")]
LOCAL = "http://127.0.0.1:9000"


@app.command()
def serve(
    *,
    link: Annotated[
        list[str],
        typer.Option(
            help="Name and address of a link for clients: NAME=HOST:PORT or NAME=PORT. Repeat it for several links."
        ),
    ],
    to: Annotated[str, typer.Option(help="HOST:PORT of the target, resolved for each connection.")],
    control: Annotated[str, typer.Option(help="HOST:PORT or PORT of the control API.")] = "127.0.0.1:9000",
    profile: Annotated[str | None, typer.Option(help="Profile with which every link starts.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of a profile with phases.")] = 0,
    port_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for the control API's port, written when everything listens."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="Log level: debug, info, warning or error.")] = "info",
) -> None:
    """Run links and their control API until Ctrl-C or SIGTERM. Links start as fast as the machine, or with --profile.

    A port alone is on 127.0.0.1. Port 0 takes a free one, which the log and `gkt wan show` print. The control API requires no
    key: let it listen only on loopback or in a private network.

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
        raise ConfigurationError(f"--log-level {log_level}: not one of debug, info, warning, error")
    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises the signal again when everything is closed
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
    latency: Annotated[
        str | None, typer.Option(help="Latency of the ROUND TRIP, such as 80ms or 0.6s, half of it each way.")
    ] = None,
    jitter: Annotated[
        str | None, typer.Option(help="Upper bound of the random extra round trip time, such as 20ms.")
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(help="Bandwidth of both ways, such as 500kbit, 2mbit or unlimited.")
    ] = None,
    up: Annotated[str | None, typer.Option(help="Bandwidth to the cloud.")] = None,
    down: Annotated[str | None, typer.Option(help="Bandwidth from the cloud.")] = None,
    control: ControlUrl = LOCAL,
) -> None:
    """Change latency, jitter or bandwidth; other values stay. Ends a profile; faults stay.

    Example: gkt wan set --latency 80ms --bandwidth 2mbit edge-a
    """
    with Control(control) as client:
        for state in _chosen(client, link):
            changed = state.conditions.changed(latency=latency, jitter=jitter, bandwidth=bandwidth, up=up, down=down)
            client.set_conditions(state.name, changed)


@app.command()
def cut(link: Name = None, *, direction: Way = "both", after: After = None, control: ControlUrl = LOCAL) -> None:
    """Close every live connection, drop bytes in transit, and refuse new connections, until `resume`."""
    _do(control, link, "cut", direction=direction, after_bytes=after)


@app.command()
def stall(link: Name = None, *, direction: Way = "both", after: After = None, control: ControlUrl = LOCAL) -> None:
    """Hold all bytes silently until `resume`; then all of them pass."""
    _do(control, link, "stall", direction=direction, after_bytes=after)


@app.command()
def reset(link: Name = None, *, direction: Way = "both", after: After = None, control: ControlUrl = LOCAL) -> None:
    """Reset every live connection (RST). New ones are served."""
    _do(control, link, "reset", direction=direction, after_bytes=after)


@app.command()
def refuse(link: Name = None, *, control: ControlUrl = LOCAL) -> None:
    """Refuse new connections until `resume`. Live connections continue."""
    _do(control, link, "refuse")


@app.command()
def corrupt(
    link: Name = None,
    *,
    rate: Annotated[
        float, typer.Option(help="Fraction of bytes that have a bit flipped, above 0 and at most 1.")
    ] = 0.001,
    seed: Annotated[int, typer.Option(min=0, help="Random seed: the same seed flips the same bits.")] = 0,
    direction: Way = "both",
    after: After = None,
    control: ControlUrl = LOCAL,
) -> None:
    """Flip bits until `resume`."""
    _do(control, link, "corrupt", rate=rate, seed=seed, direction=direction, after_bytes=after)


@app.command()
def resume(link: Name = None, *, control: ControlUrl = LOCAL) -> None:
    """End every fault. Latency and bandwidth stay."""
    _do(control, link, "resume")


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="Profile: fibre, 4g, train, satellite or offline.")],
    link: Name = None,
    *,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of a profile with phases: the same seed gives the same phases.")
    ] = 0,
    control: ControlUrl = LOCAL,
) -> None:
    """Apply a named profile: its latency, jitter and bandwidth, and only its own fault.

    Example: gkt wan profile train edge-a
    """
    _do(control, link, "profile", name=name, seed=seed)


@app.command()
def show(link: Name = None, *, as_json: AsJson = False, control: ControlUrl = LOCAL) -> None:
    """Show links: their conditions, faults and counts."""
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
                f"--link {option}: expected NAME=HOST:PORT or NAME=PORT, with letters, digits and .-_ in the name"
            )
        if name in links:
            raise BadUnit(f"--link {option}: two links have the name {name}")
        links[name] = address(where)
    return links


def _target(to: str) -> Address:
    target = address(to)
    if not target.port:
        raise BadUnit(f"--to {to}: expected HOST:PORT with a port above 0")
    return target
