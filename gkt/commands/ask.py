"""`gkt ask`: send one question to the edge and stream the answer to the terminal."""

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
    question: Annotated[str, typer.Argument(help="Question; - reads it from standard input.")],
    *,
    url: Annotated[str, typer.Option(help="Base URL of the edge.")] = "http://127.0.0.1:8081",
    model: Annotated[
        str,
        typer.Option(help="Model: gkt (guided), gkt-student (the student alone) or gkt-teacher (the teacher alone)."),
    ] = "gkt",
    mode: Annotated[
        str | None, typer.Option(help=f"Mode of the answer, such as {', '.join(Mode)}; overrides the model.")
    ] = None,
    max_guidance_tokens: Annotated[
        int | None, typer.Option(min=0, help="Maximum tokens of guidance. If unset, the edge's default.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens of the answer, both sides together.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message before the question.")] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Wait for the whole answer and print the edge's JSON; its `gkt` object reports who wrote what.",
        ),
    ] = False,
) -> None:
    """Ask a question and stream the answer: the teacher's part in orange, the student's in blue.

    The last line has each side's tokens and the time it added, the percentage of tokens that the student wrote, and the reason
    if the cloud failed. In a pipe, or with NO_COLOR set, only the answer goes to standard output, and the figures go to
    standard error. The key for the edge is read from GKT_EDGE_API_KEY; there is no option for it, because anyone on the machine
    can read command lines.

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
