"""One client of both services: asks, and notes when the bytes of the answer come."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import httpx

from evaluation.figures import NotMeasured
from evaluation.loadgen import timeline
from evaluation.loadgen.timeline import Answer, GuidanceRun
from shared.protocol.gkt import GktOptions, Mode
from shared.protocol.guidance import GuidanceRequest, Message
from shared.protocol.messages import ChatMessage
from shared.protocol.openai import ChatCompletionRequest, StreamOptions
from shared.protocol.sse import TimedBytes


class Client:
    """Greedy answers to one question at a time, over connections that stay open. Raises NotMeasured."""

    def __init__(
        self,
        edge_url: str,
        cloud_url: str,
        cloud_key: str | None,
        *,
        edge_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        timeout = httpx.Timeout(60, connect=5)

        def client(url: str, key: str | None) -> httpx.Client:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return httpx.Client(base_url=url, timeout=timeout, headers=headers, transport=transport)

        self._edge, self._cloud = client(edge_url, edge_key), client(cloud_url, cloud_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._edge.close()
        self._cloud.close()

    def answer(
        self,
        question: str,
        *,
        model: str,
        max_tokens: int,
        mode: Mode | None = None,
        guidance_tokens: int | None = None,
        degraded: bool = False,
    ) -> Answer:
        """A streamed answer of the edge; with `degraded` one in which the student stood in is good too."""
        options = GktOptions(mode=mode, max_guidance_tokens=guidance_tokens)
        body = ChatCompletionRequest(
            model=model,
            messages=[ChatMessage(role="user", content=question)],
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            gkt=options,
        )
        reads = timed(self._edge, "/v1/chat/completions", body.model_dump_json(exclude_none=True))
        return timeline.answer(reads, degraded=degraded)

    def guidance(self, question: str, *, tokens: int) -> GuidanceRun:
        """Guidance straight from the cloud, as the edge would ask for it."""
        body = GuidanceRequest(messages=[Message(role="user", content=question)], max_guidance_tokens=tokens)
        return timeline.guidance(timed(self._cloud, "/v1/guidance", body.model_dump_json()))


def timed(http: httpx.Client, path: str, body: str) -> list[TimedBytes]:
    """What a stream of events brings, and when. Raises NotMeasured."""
    headers = {"content-type": "application/json", "accept": "text/event-stream", "accept-encoding": "identity"}
    request = http.build_request("POST", path, content=body.encode(), headers=headers)
    clock = time.perf_counter
    reads: list[TimedBytes] = []
    try:
        start = clock()
        response = http.send(request, stream=True)
        try:
            if response.status_code != httpx.codes.OK:
                text = response.read().decode(errors="replace")
                raise NotMeasured(f"{request.url} answered {response.status_code}: {text[:500]}")
            reads.extend((clock() - start, data) for data in response.iter_raw())
        finally:
            response.close()
    except httpx.HTTPError as error:
        raise NotMeasured(f"{request.url}: {type(error).__name__} {error}") from error
    return reads
