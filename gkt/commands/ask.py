"""`gkt ask`: one question to the edge, the answer on the terminal as it comes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gkt.local.edge_client import complete, reached, streamed
from gkt.terminal.transcript import Transcript
from shared.protocol.gkt import GktReport, Mode

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    *,
    url: Annotated[str, typer.Option(help="Base URL of the edge.")] = "http://127.0.0.1:8081",
    model: Annotated[
        str,
        typer.Option(
            help="gkt (guided), gkt-student (never asks the cloud) or gkt-teacher (the teacher writes it all)."
        ),
    ] = "gkt",
    mode: Annotated[
        Mode | None, typer.Option(help="Who writes the answer; goes before what the model name says.")
    ] = None,
    max_guidance_tokens: Annotated[
        int | None, typer.Option(min=0, help="The teacher's tokens, at most. Without it the edge decides.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the answer, at most, both sides together.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to put before the question.")] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Wait for the whole answer and print the edge's JSON, in which `gkt` says who wrote what."
        ),
    ] = False,
) -> None:
    """Ask a question, and watch who writes the answer: the teacher's part in orange, the student's in blue.

    The last line has each side's tokens and the time it added, and how many of the answer's tokens the cloud was spared; where
    the cloud failed, why. In a pipe, or with NO_COLOR set, the answer alone goes to standard output and the figures to
    standard error. An edge that wants a key gets the one in GKT_EDGE_API_KEY; there is no option for it, because anyone on the
    machine can read command lines.

    Examples: gkt ask "What is 17 * 23?" · gkt ask --mode off - < question.txt · gkt ask --json "Hi" | jq .gkt.segments
    """
    options = {"mode": mode, "max_guidance_tokens": max_guidance_tokens}
    body = {
        "model": model,
        "messages": [
            *([{"role": "system", "content": system}] if system else []),
            {"role": "user", "content": _text(question)},
        ],
        "max_tokens": max_tokens,
        "gkt": {key: value for key, value in options.items() if value is not None} or None,
    }
    with reached(url) as client:
        if as_json:
            sys.stdout.write(complete(client, body) + "\n")
            return
        transcript = Transcript()
        try:
            for item in streamed(client, body):
                if isinstance(item, GktReport):
                    transcript.figures(item)
                else:
                    transcript.write(*item)
        finally:
            transcript.close()


def _text(question: str) -> str:
    try:
        text = sys.stdin.read() if question == "-" else question
        text.encode()
    except UnicodeError:
        raise typer.BadParameter("the question is not valid UTF-8") from None
    if not text.strip():
        raise typer.BadParameter("the question is empty")
    return text
