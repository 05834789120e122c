"""The lab's client of the edge: one streamed answer at a time."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from evaluation.lab.errors import EdgeGone
from evaluation.lab.runs.answer import EdgeAnswer, RequestFailed, answer_of
from shared.errors import StreamError
from shared.protocol.answer_stream import AnswerFailed, aiter_answer_chunks
from shared.protocol.guidance import ErrorBody, Health, Message

TRIES = 5
"""Number of attempts at a request that the edge has no room for."""
RETRY_S = 1.0
"""Time between two attempts if the edge names none."""


class LabEdge:
    """An edge that answers greedily, over connections that stay open.

    Raises RequestFailed if one request fails, EdgeGone if the edge cannot be reached.
    """

    def __init__(self, url: str, *, connections: int, timeout_s: float) -> None:
        """An answer may be silent for `timeout_s`."""
        self._url = url
        self._run = secrets.token_hex(8)
        try:
            self._http = httpx.AsyncClient(
                base_url=url,
                timeout=httpx.Timeout(timeout_s, connect=5, pool=None),
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                trust_env=False,  # the edge is near: the environment's proxies are not for it
            )
        except httpx.InvalidURL as error:
            raise EdgeGone(f"{url!r} is not the URL of an edge: {error}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def student(self) -> str:
        """Return the name of the edge's model. Raises EdgeGone if no edge is ready."""
        try:
            response = await self._http.get("/ready")
            health = Health.model_validate_json(response.content)
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise EdgeGone(f"no edge can be reached at {self._url}: {type(error).__name__} {error}") from None
        except ValidationError:
            raise EdgeGone(f"the server at {self._url} is not an edge of gkt") from None
        if response.status_code != httpx.codes.OK or not health.model:
            raise EdgeGone(f"the edge at {self._url} is not ready: {health.detail or health.status}")
        return health.model

    async def answer(
        self,
        messages: Sequence[Message],
        request: Mapping[str, Any],
        *,
        max_tokens: int,
        seed: int,
        arm: str,
        logprobs: bool = False,
    ) -> EdgeAnswer:
        """Return one greedy answer. `request` is the arm's part of the body: `model`, and `gkt` if it has one.

        Each arm of each run has its own cache salt, so that it finds in an engine's cache only what it has put there itself.
        """
        body = {
            "messages": [message.model_dump() for message in messages],
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": seed,
            "stream": True,
            "cache_salt": f"{self._run}/{arm}",
            **({"logprobs": True} if logprobs else {}),
            **request,
        }
        for left in reversed(range(TRIES)):
            try:
                return await self._once(json.dumps(body).encode())
            except RequestFailed as failure:
                if failure.retry_after_s is None or not left:
                    raise
                await asyncio.sleep(failure.retry_after_s)
            except httpx.TransportError as error:
                await self._check_alive(error)
                raise RequestFailed(f"the connection to the edge broke: {type(error).__name__} {error}") from error
        raise AssertionError("unreachable")

    async def _once(self, body: bytes) -> EdgeAnswer:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        start = time.perf_counter()
        async with self._http.stream("POST", "/v1/chat/completions", content=body, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, await response.aread())
            try:
                chunks = [(time.perf_counter() - start, chunk) async for chunk in aiter_answer_chunks(response)]
            except AnswerFailed as failure:
                raise RequestFailed(failure.message) from None
            except StreamError as error:
                raise RequestFailed(f"the edge's stream: {error}") from None
        return answer_of(chunks, time.perf_counter() - start)

    async def _check_alive(self, error: httpx.TransportError) -> None:
        """Raises EdgeGone if the edge itself is gone, and not only the connection that broke."""
        try:
            await self._http.get("/health", timeout=5)
        except httpx.TransportError:
            raise EdgeGone(
                f"the edge at {self._url} is gone: {type(error).__name__} {error}. The answers so far are kept; "
                "the same command goes on from there"
            ) from error


def _refusal(status: int, body: bytes) -> RequestFailed:
    try:
        detail = ErrorBody.model_validate_json(body).error
    except ValidationError:
        detail = None
    message = f"{status}: {detail.message if detail else 'no reason given'}"
    if status not in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
        return RequestFailed(message)
    named = detail.retry_after_s if detail else None
    return RequestFailed(message, RETRY_S if named is None else named)
