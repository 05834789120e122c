"""`gkt demo`: show the worth of guidance over links of every kind, and a complete answer over a link that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from gkt.commands.demo_tour import QUESTIONS, Tour
from gkt.commands.up import fetch
from gkt.local.edge_client import reached
from gkt.local.preflight import leave_on_sigterm, need_cloud_engine, need_edge_engine
from gkt.terminal.screen import Screen
from shared.errors import ConfigurationError, GktError
from wan.control import Control

if TYPE_CHECKING:
    from gkt.local.pair import Pair

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def demo(
    *,
    edge: Annotated[str | None, typer.Option(help="Base URL of a running edge; requires --control.")] = None,
    control: Annotated[
        str | None, typer.Option(help="Base URL of the control API of the link between that edge and its cloud.")
    ] = None,
    link: Annotated[str | None, typer.Option(help="Name of the edge's link. If unset, the only one.")] = None,
    teacher: Annotated[
        str | None, typer.Option(envvar="GKT_CLOUD_MODEL", help="Teacher, if the demo starts its own services.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(envvar="GKT_EDGE_MODEL", help="Student, if the demo starts its own services.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help=f"Profile of the link: {', '.join(QUESTIONS)}. Repeat it for several. If unset, all."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer, both sides together.")] = 64,
    max_guidance_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens of guidance in an answer.")] = 16,
) -> None:
    """Ask over fibre, 4G, a train's link, a satellite and no link, then cut the cable during the guidance.

    Each answer is shown with the teacher's part in orange and the student's in blue. A table compares times and bytes with those
    of the teacher alone over the same link. Without --edge and --control, the demo starts a cloud, a link and an edge on this
    machine, and stops them at the end.

    Example: gkt demo --edge http://127.0.0.1:8081 --control http://127.0.0.1:9000 --link edge-a
    """
    if (edge is None) != (control is None):
        raise typer.BadParameter("--edge and --control: set both or none")
    profiles = profile or list(QUESTIONS)
    if unknown := [name for name in profiles if name not in QUESTIONS]:
        raise typer.BadParameter(f"--profile {unknown[0]}: not one of {', '.join(QUESTIONS)}")

    def tour(edge_url: str, control_url: str, key: str | None = None) -> None:
        with reached(edge_url, key) as client, Control(control_url) as controls:
            options = {"max_tokens": max_tokens, "max_guidance_tokens": max_guidance_tokens}
            Tour(client, controls, _link(controls, link), profiles=profiles, **options).run()

    if edge is not None and control is not None:
        tour(edge, control)
    else:
        _with_own(teacher, student, tour)


def _with_own(teacher: str | None, student: str | None, tour: Callable[[str, str, str | None], None]) -> None:
    """Start all three on free ports, and run the tour."""
    leave_on_sigterm()
    need_cloud_engine()
    need_edge_engine()
    from gkt.local.pair import Pair
    from gkt.local.pair_runner import ServiceEnded

    pair = Pair.plan(teacher=teacher, student=student, cloud_port=0, edge_port=0, wan_port=0)
    fetch(pair.cloud.model, pair.edge.model)
    screen = Screen()
    screen.say("logs: " + ", ".join(str(service.log) for service in pair.services))
    with screen:
        try:
            asyncio.run(_run(pair, screen, tour))
        except ServiceEnded as error:
            screen.say(error.log_tail)
            raise


async def _run(pair: Pair, screen: Screen, tour: Callable[[str, str, str | None], None]) -> None:
    from gkt.local.pair_runner import PairRunner

    assert pair.wan  # noqa: S101 - it was planned with one
    runner = PairRunner(pair)
    key = next((key.get_secret_value() for key in pair.edge.api_keys), None)
    where = pair.edge_url, pair.wan.control_url, key
    showing: asyncio.Task[None] | None = None

    async def show() -> None:
        try:
            await asyncio.to_thread(tour, *where)
        finally:
            runner.stop()

    def ready(after_s: float) -> None:
        nonlocal showing
        screen.say(f"ready after {after_s:.0f} s")
        showing = asyncio.create_task(show())

    try:
        await runner.run(on_status=screen.status, on_ready=ready)
        if showing is None or not showing.done():
            raise typer.Exit(130)  # a signal
    finally:
        if showing:
            # If the services end first, the tour fails too; that error adds nothing.
            with suppress(GktError) if not showing.done() else nullcontext():
                await showing


def _link(controls: Control, name: str | None) -> str:
    names = [state.name for state in controls.links()]
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        raise ConfigurationError(f"--link: expected one of {', '.join(names)}")
    return name
