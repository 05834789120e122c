"""`gkt up`: a cloud and an edge on this machine."""

from __future__ import annotations

import asyncio
import json
import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gkt.local.preflight import leave_on_sigterm, need_cloud_engine, need_edge_engine
from gkt.terminal.screen import Screen

if TYPE_CHECKING:
    from gkt.local.pair import Pair

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

QUESTION = "Natalia sold clips to 48 friends in April, and half as many in May. How many clips did she sell altogether?"


@app.command()
def up(
    *,
    teacher: Annotated[
        str | None,
        typer.Option(
            envvar="GKT_CLOUD_MODEL",
            show_default="qwen2.5-coder-1.5b-instruct",
            help="The cloud's model: a name from `gkt models list`, a GGUF file, a model folder, or owner/repo on the hub.",
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            envvar="GKT_EDGE_MODEL",
            show_default="qwen2.5-coder-0.5b-instruct",
            help="The edge's model: a name from `gkt models list`, a GGUF file, or owner/repo:file.gguf on the hub.",
        ),
    ] = None,
    cloud_port: Annotated[
        int, typer.Option(envvar="GKT_CLOUD_PORT", min=0, max=65535, help="Port of the cloud; 0 takes a free one.")
    ] = 8080,
    edge_port: Annotated[
        int,
        typer.Option(
            envvar="GKT_EDGE_PORT", min=0, max=65535, help="Port of the edge, for clients; 0 takes a free one."
        ),
    ] = 8081,
    wan: Annotated[
        bool, typer.Option("--wan", help="Put a wide-area link between the two, which `gkt wan` changes while it runs.")
    ] = False,
    wan_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the link's control API; 0 takes a free one.")
    ] = 9000,
) -> None:
    """Start a cloud and an edge on this machine, and keep them running until Ctrl-C, which stops both.

    The first time the models are fetched, verified and, for the teacher, converted; later that is all there already. Both
    sides start as processes of their own, which know each other by a key made for this run. Once both are ready one curl line
    to try is printed, the only line on standard output. The first start of a large teacher may take some minutes.

    Any setting of either side can be made in the environment (GKT_CLOUD_..., GKT_EDGE_...: docs/reference/configuration.md),
    except that this edge always asks this cloud. The logs are under GKT_HOME, and the start says where.

    Example: gkt up --teacher smollm2-135m-instruct --student smollm2-135m-instruct
    """
    leave_on_sigterm()  # while models are fetched; later the event loop takes signals
    need_cloud_engine()
    need_edge_engine()
    from gkt.local.pair import Pair, SideEnded, Sides

    pair = Pair.plan(
        teacher=teacher,
        student=student,
        cloud_port=cloud_port,
        edge_port=edge_port,
        wan_port=wan_port if wan else None,
    )
    fetch(pair.cloud.model, pair.edge.model)
    screen = Screen()
    if pair.wan:
        # Said before they are ready too: a link that is slow from the start is a case of its own.
        screen.say(f"the link is controlled at {pair.wan.control_url}: {_example(pair.wan.control)}")
    screen.say("logs: " + ", ".join(str(service.log) for service in pair.services))
    with screen:
        try:
            asyncio.run(Sides(pair).run(on_status=screen.status, on_ready=partial(_say_ready, screen, pair)))
        except SideEnded as error:
            screen.say(error.last_words)
            raise
    screen.say("both stopped")


def _example(control_port: int) -> str:
    """A command that changes the link."""
    variable = "" if control_port == 9000 else f"GKT_WAN_CONTROL=http://127.0.0.1:{control_port} "
    return f"{variable}gkt wan profile 4g"


def fetch(teacher: str, student: str) -> None:
    """Have the models here, the teacher converted."""
    from cloud_teacher.model_files.conversion import ensure_folder
    from gkt.commands.models import shown_progress
    from shared.model_hub.catalog import ensure_gguf

    ensure_gguf(student, progress=shown_progress())
    ensure_folder(teacher, progress=shown_progress())


def _say_ready(screen: Screen, pair: Pair, after_s: float) -> None:
    screen.say(f'ready after {after_s:.0f} s; Ctrl-C stops both. Try `gkt ask "..."` in another terminal, or:')
    body = {"model": "gkt", "messages": [{"role": "user", "content": QUESTION}]}
    url = f"{pair.edge_url}/v1/chat/completions"
    # The variable and not its value: what is printed here may be kept.
    key = ' -H "authorization: Bearer $GKT_EDGE_API_KEY"' if pair.edge.api_keys else ""
    header = "content-type: application/json"
    typer.echo(f"curl -s {shlex.quote(url)} -H {shlex.quote(header)}{key} -d {shlex.quote(json.dumps(body))}")
