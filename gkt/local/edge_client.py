"""The command line's client of the edge: streams an answer, and raises every failure as a GktError."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from shared.errors import ConfigurationError, GktError, StreamBroken, StreamGarbled
from shared.protocol.answer_stream import answer_chunks
from shared.protocol.gkt import GktReport, Source
from shared.protocol.guidance import ErrorBody
from shared.server.bearer_keys import is_sendable

API_KEY = "GKT_EDGE_API_KEY"


class EdgeUnreachable(GktError):
    code = "edge_unreachable"


class EdgeRefused(GktError):
    """The edge returned an error."""

    code = "edge_refused"


@contextmanager
def reached(url: str, key: str | None = None) -> Iterator[httpx.Client]:
    """Open a client of the edge without a read timeout. If the edge is unreachable, the error has the command to start one.

    The key is the given one, or the one in GKT_EDGE_API_KEY. Raises ConfigurationError for an invalid key.
    """
    key = key or os.environ.get(API_KEY)
    if key and not is_sendable(key):
        raise ConfigurationError(f"{API_KEY}: expected printable ASCII without spaces")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(None, connect=5)
    try:
        # The edge is near, so proxies of the environment are ignored.
        with httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False) as client:
            yield client
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise EdgeUnreachable(
            f"no edge at {url} ({error}). Start one with: gkt up (or set its address with --url)"
        ) from None
    except httpx.TransportError as error:
        raise StreamBroken(f"the connection to the edge broke: {error}") from None


def complete(client: httpx.Client, body: dict[str, Any]) -> str:
    """Return the edge's whole answer as indented JSON."""
    response = client.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        raise _refusal(response)
    try:
        return json.dumps(response.json(), indent=2)  # ASCII, so that it contains no control sequence for a terminal
    except ValueError:
        raise StreamGarbled("not an answer of an edge: the body is not JSON") from None


def streamed(client: httpx.Client, body: dict[str, Any]) -> Iterator[tuple[Source, str] | GktReport]:
    """Yield pieces of text with their source, then the report. Raises EdgeRefused, and StreamError as `answer_chunks` does."""
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        if response.status_code != 200:
            response.read()
            raise _refusal(response)
        for chunk in answer_chunks(response):
            if isinstance(chunk.gkt, GktReport):
                yield chunk.gkt
            elif chunk.gkt and chunk.choices:
                yield chunk.gkt.source, chunk.choices[0].delta.content or ""


def _refusal(response: httpx.Response) -> EdgeRefused:
    try:
        message = ErrorBody.model_validate_json(response.content).error.message
    except ValidationError:
        message = "the server is not an edge"
    return EdgeRefused(f"the edge rejected the request ({response.status_code}): {message}")
