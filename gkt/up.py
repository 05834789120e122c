"""`gkt up`: a cloud and an edge on this machine."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from gkt.starting import leave_on_sigterm, need_cloud_engine, need_edge_engine

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
) -> None:
    """Start a cloud and an edge on this machine, and keep them running until Ctrl-C, which stops both.

    The first time the models are fetched, verified and, for the teacher, converted; later that is all there already. Both
    sides start as processes of their own, which know each other by a key made for this run. Once both are ready one curl line
    to try is printed, the only line on standard output. The first start of a large teacher may take some minutes.

    Any setting of either side can be made in the environment (GKT_CLOUD_..., GKT_EDGE_...: docs/configuration.md), except that
    this edge always asks this cloud. The logs are under GKT_HOME, and the start says where.

    Example: gkt up --teacher smollm2-135m-instruct --student smollm2-135m-instruct
    """
    leave_on_sigterm()  # while models are fetched; later the event loop takes signals
    need_cloud_engine()
    need_edge_engine()
    from gkt.pair import Pair, SideEnded, Sides

    pair = Pair.plan(teacher=teacher, student=student, cloud_port=cloud_port, edge_port=edge_port)
    _fetch(pair.cloud.model, pair.edge.model)
    screen = _Screen(pair.edge_url, wants_key=bool(pair.edge.api_keys))
    screen.say(f"logs: {pair.logs[0]} and {pair.logs[1]}")
    with screen:
        try:
            asyncio.run(Sides(pair).run(on_status=screen.status, on_ready=screen.ready))
        except SideEnded as error:
            screen.say(error.last_words)
            raise
    screen.say("both stopped")


def _fetch(teacher: str, student: str) -> None:
    from cloud_teacher.conversion import ensure_folder
    from gkt.models import shown_progress
    from shared.catalog import ensure_gguf

    ensure_gguf(student, progress=shown_progress())
    ensure_folder(teacher, progress=shown_progress())


class _Screen:
    """Says on standard error what goes on: in a line that changes, or where nobody sees that, a line for each change."""

    def __init__(self, url: str, *, wants_key: bool) -> None:
        self._url = url
        self._wants_key = wants_key
        self._console = Console(stderr=True)
        self._shown: Status | None = None
        self._last = ""
        self._began = time.monotonic()
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._hide()

    def say(self, line: str) -> None:
        self._hide()
        self._console.print(escape(line), soft_wrap=True, highlight=False)

    def status(self, line: str) -> None:
        if self._console.is_terminal:
            shown = f"{escape(line)} [dim]({time.monotonic() - self._began:.0f} s)[/dim]"
            if self._shown is None:
                self._shown = self._stack.enter_context(self._console.status(shown))
            self._shown.update(shown)
        elif line != self._last:
            self.say(line)
        self._last = line

    def ready(self, after_s: float) -> None:
        self.say(f'ready after {after_s:.0f} s; Ctrl-C stops both. Try `gkt ask "..."` in another terminal, or:')
        body = {"model": "gkt", "messages": [{"role": "user", "content": QUESTION}]}
        url = f"{self._url}/v1/chat/completions"
        # The variable and not its value: what is printed here may be kept.
        key = ' -H "authorization: Bearer $GKT_EDGE_API_KEY"' if self._wants_key else ""
        header = "content-type: application/json"
        typer.echo(f"curl -s {shlex.quote(url)} -H {shlex.quote(header)}{key} -d {shlex.quote(json.dumps(body))}")

    def _hide(self) -> None:
        self._stack.close()
        self._shown = None
