"""`gkt ask`: one question to the edge, the answer on the terminal as it comes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from httpx_sse import EventSource, SSEError
from pydantic import ValidationError

from gkt.transcript import Transcript
from shared.errors import ConfigurationError, GktError, StreamBroken, StreamGarbled
from shared.guided import GktReport, Mode, Source
from shared.keys import is_sendable
from shared.openai import ChatCompletionChunk
from shared.wire import ErrorBody

API_KEY = "GKT_EDGE_API_KEY"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


class EdgeUnreachable(GktError):
    code = "edge_unreachable"


class EdgeRefused(GktError):
    """The edge answered with an error."""

    code = "edge_refused"


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
    with _edge(url) as client:
        if as_json:
            sys.stdout.write(_complete(client, body) + "\n")
            return
        transcript = Transcript()
        try:
            for item in _stream(client, body):
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


@contextmanager
def _edge(url: str) -> Iterator[httpx.Client]:
    """A client of the edge, for an answer that may take its time. Says what to do where nobody is there.

    Raises ConfigurationError for a key that cannot be one.
    """
    key = os.environ.get(API_KEY)
    if key and not is_sendable(key):
        raise ConfigurationError(f"{API_KEY}: a key is printable ASCII without spaces")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(None, connect=5)
    try:
        # The edge is near: no proxy of the environment stands between.
        with httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False) as client:
            yield client
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise EdgeUnreachable(
            f"no edge can be reached at {url} ({error}). Start one with: gkt up (or say where it is with --url)"
        ) from None
    except httpx.TransportError as error:
        raise StreamBroken(f"the connection to the edge broke: {error}") from None


def _complete(client: httpx.Client, body: dict[str, Any]) -> str:
    response = client.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        raise _refusal(response)
    try:
        return json.dumps(response.json(), indent=2)  # ASCII, so that no terminal takes it for more than text
    except ValueError:
        raise StreamGarbled("what answered is not an edge") from None


def _stream(client: httpx.Client, body: dict[str, Any]) -> Iterator[tuple[Source, str] | GktReport]:
    """Text by its source as it comes, and at the end the report. Raises StreamBroken where the end does not come."""
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        if response.status_code != 200:
            response.read()
            raise _refusal(response)
        try:
            for event in EventSource(response).iter_sse():
                if event.data == "[DONE]":
                    return
                chunk = _chunk(event.data)
                if isinstance(chunk.gkt, GktReport):
                    yield chunk.gkt
                elif chunk.gkt and chunk.choices:
                    yield chunk.gkt.source, chunk.choices[0].delta.content or ""
        except SSEError:
            raise StreamGarbled("what answered is not an edge") from None
    raise StreamBroken("the answer ended before its end")


def _chunk(data: str) -> ChatCompletionChunk:
    try:
        return ChatCompletionChunk.model_validate_json(data)
    except ValidationError:
        pass
    try:
        raise EdgeRefused(ErrorBody.model_validate_json(data).error.message)
    except ValidationError:
        raise StreamGarbled("the edge sent something that is no part of an answer") from None


def _refusal(response: httpx.Response) -> EdgeRefused:
    try:
        message = ErrorBody.model_validate_json(response.content).error.message
    except ValidationError:
        message = "what answered is not an edge"
    return EdgeRefused(f"the edge refused ({response.status_code}): {message}")
