"""A sequential client of a cloud and its edge that stores arrival times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from evaluation.figures import NotMeasured
from evaluation.loadgen.timeline import TimedAnswer, TimedGuidance, parse_answer, parse_guidance
from shared.protocol.gkt import GktOptions, Mode
from shared.protocol.guidance import GuidanceRequest, Message
from shared.protocol.messages import ChatMessage
from shared.protocol.openai_requests import ChatCompletionRequest, StreamOptions
from shared.protocol.sse import TimedBytes


@dataclass(frozen=True)
class Client:
    """Sends one greedy request at a time, over connections that stay open. Methods raise NotMeasured."""

    edge: httpx.Client
    cloud: httpx.Client

    def answer(
        self,
        question: str,
        *,
        model: str = "gkt",
        max_tokens: int,
        mode: Mode | None = None,
        guidance_tokens: int | None = None,
        degraded: bool = False,
    ) -> TimedAnswer:
        """Stream an answer of the edge. With `degraded` the student may have continued because the cloud failed."""
        body = ChatCompletionRequest(
            model=model,
            messages=[ChatMessage(role="user", content=question)],
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            gkt=GktOptions(mode=mode, max_guidance_tokens=guidance_tokens),
        )
        reads = timed(self.edge, "/v1/chat/completions", body.model_dump_json(exclude_none=True))
        return parse_answer(reads, degraded=degraded)

    def guidance(self, question: str, *, tokens: int) -> TimedGuidance:
        """Stream guidance directly from the cloud, with the request that the edge would send."""
        body = GuidanceRequest(messages=[Message(role="user", content=question)], max_guidance_tokens=tokens)
        guidance = parse_guidance(timed(self.cloud, "/v1/guidance", body.model_dump_json()))
        if guidance.done is None:
            raise NotMeasured("the cloud's stream ended early")
        return guidance


@contextmanager
def connected(
    edge_url: str,
    cloud_url: str,
    cloud_key: str | None,
    *,
    edge_key: str | None = None,
    transport: httpx.BaseTransport | None = None,
) -> Iterator[Client]:
    def http(url: str, key: str | None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=url, timeout=httpx.Timeout(60, connect=5), headers=headers, transport=transport)

    with http(edge_url, edge_key) as edge, http(cloud_url, cloud_key) as cloud:
        yield Client(edge, cloud)


def timed(http: httpx.Client, path: str, body: str) -> list[TimedBytes]:
    """Send a request and return what its stream brings, and when. Raise NotMeasured."""
    headers = {"content-type": "application/json", "accept": "text/event-stream", "accept-encoding": "identity"}
    start = time.perf_counter()
    try:
        with http.stream("POST", path, content=body.encode(), headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                text = response.read().decode(errors="replace")
                raise NotMeasured(f"{response.url} answered {response.status_code}: {text[:500]}")
            return [(time.perf_counter() - start, data) for data in response.iter_raw()]
    except httpx.HTTPError as error:
        raise NotMeasured(f"{http.base_url}{path}: {type(error).__name__} {error}") from error
