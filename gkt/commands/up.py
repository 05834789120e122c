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
            help="Teacher: a name from `gkt models list`, a GGUF file, a model folder, or owner/repo on the hub.",
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            envvar="GKT_EDGE_MODEL",
            show_default="qwen2.5-coder-0.5b-instruct",
            help="Student: a name from `gkt models list`, a GGUF file, or owner/repo:file.gguf on the hub.",
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
        bool, typer.Option("--wan", help="Put a wide-area link between the two; `gkt wan` changes it while it runs.")
    ] = False,
    wan_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the link's control API; 0 takes a free one.")
    ] = 9000,
) -> None:
    """Run a cloud and an edge on this machine until Ctrl-C, which stops both.

    The first start downloads and verifies the models, and converts the teacher. Both sides run as processes of their own and
    share a key made for this run. When both are ready, a curl command is printed, the only line on standard output. The first
    start of a large teacher may take some minutes.

    Every setting of both sides can be set in the environment (GKT_CLOUD_..., GKT_EDGE_...: docs/reference/configuration.md),
    except that this edge always uses this cloud. The logs are under GKT_HOME; their paths are printed.

    Example: gkt up --teacher smollm2-135m-instruct --student smollm2-135m-instruct
    """
    leave_on_sigterm()  # during the download; later the event loop handles signals
    need_cloud_engine()
    need_edge_engine()
    from gkt.local.pair import Pair
    from gkt.local.pair_runner import PairRunner, ServiceEnded

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
        # Printed before they are ready, so that the link can be slow from the start.
        screen.say(f"the link is controlled at {pair.wan.control_url}: {_example(pair.wan.control)}")
    screen.say("logs: " + ", ".join(str(service.log) for service in pair.services))
    with screen:
        try:
            asyncio.run(PairRunner(pair).run(on_status=screen.status, on_ready=partial(_say_ready, screen, pair)))
        except ServiceEnded as error:
            screen.say(error.log_tail)
            raise
    screen.say("both stopped")


def _example(control_port: int) -> str:
    """Return an example of a command that changes the link."""
    variable = "" if control_port == 9000 else f"GKT_WAN_CONTROL=http://127.0.0.1:{control_port} "
    return f"{variable}gkt wan profile 4g"


def fetch(teacher: str, student: str) -> None:
    """Download both models, and convert the teacher."""
    from cloud_teacher.model_files.conversion import ensure_folder
    from gkt.commands.models import shown_progress
    from shared.model_hub.local_models import ensure_gguf

    ensure_gguf(student, progress=shown_progress())
    ensure_folder(teacher, progress=shown_progress())


def _say_ready(screen: Screen, pair: Pair, after_s: float) -> None:
    screen.say(f'ready after {after_s:.0f} s; Ctrl-C stops both. Try `gkt ask "..."` in another terminal, or:')
    body = {"model": "gkt", "messages": [{"role": "user", "content": QUESTION}]}
    url = f"{pair.edge_url}/v1/chat/completions"
    # Print the variable and not its value, because this output may be kept.
    key = ' -H "authorization: Bearer $GKT_EDGE_API_KEY"' if pair.edge.api_keys else ""
    header = "content-type: application/json"
    typer.echo(f"curl -s {shlex.quote(url)} -H {shlex.quote(header)}{key} -d {shlex.quote(json.dumps(body))}")
