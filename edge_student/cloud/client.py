"""The client of the cloud: a connection pool, deadlines, a circuit breaker, and one exception with a reason for all failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

import httpx

from edge_student.cloud.circuit_breaker import CircuitBreaker
from edge_student.settings import EdgeSettings
from shared.errors import StreamBroken, StreamGarbled
from shared.observability.telemetry import OFF, Attributes, Span, Telemetry
from shared.protocol.content_digest import HEADER, content_digest
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import Done, ErrorBody, Event, Failure, Guidance, GuidanceRequest, ReviewRequest, Verdict
from shared.protocol.sse import decode

logger = logging.getLogger("gkt.edge")

DRAIN_S = 0.1
"""Time to read a finished stream to its end, so that its connection can be reused."""


class CloudFailed(Exception):
    """Guidance is missing or ended early. What has arrived stays valid."""

    def __init__(
        self, reason: FallbackReason, detail: str = "", *, retry_after_s: float | None = None, waited: bool = False
    ) -> None:
        """`waited` is True if a deadline passed before the first token."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.waited = waited


@dataclass
class Traffic:
    """Bytes of request and response bodies that crossed the link."""

    sent: int = 0
    received: int = 0


class CloudClient(Protocol):
    """Source of guidance."""

    def guide(self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic) -> AsyncGenerator[Event, None]:
        """Yield the events of one guidance or review stream, `Done` last. Raises CloudFailed.

        Closing the generator early stops the teacher. `traffic` is increased by the bytes that cross the link.
        """
        ...

    async def close(self) -> None: ...


class NoCloudClient:
    """The client of an edge without a cloud: every call fails."""

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        raise CloudFailed(FallbackReason.NOT_CONFIGURED)
        yield  # pragma: no cover - makes this a generator

    async def close(self) -> None:
        pass


class HttpCloudClient:
    """`POST /v1/guidance` and `POST /v1/review` over httpx."""

    def __init__(
        self,
        url: str,
        settings: EdgeSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        telemetry: Telemetry = OFF,
    ) -> None:
        headers = {"accept": "text/event-stream"}
        if settings.cloud_key:
            headers["authorization"] = f"Bearer {settings.cloud_key.get_secret_value()}"
        # Reads and writes are limited by the deadlines below, which depend on the stage of the stream.
        timeout = httpx.Timeout(None, connect=settings.connect_deadline_s)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=timeout,
            limits=limits,
            verify=settings.cloud_tls() or True,
            transport=transport,
            follow_redirects=False,
        )
        self._telemetry = telemetry
        self._first_token_s = settings.first_token_deadline_s
        self._next_token_s = settings.next_token_deadline_s
        self.breaker = CircuitBreaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s)
        self._last_received_s = 0.0
        """Time of the last bytes from the cloud, for any request."""
        self._connecting: asyncio.Task[None] | None = None

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        if not self.breaker.allow():
            raise CloudFailed(FallbackReason.BREAKER_OPEN, "the circuit breaker is open")
        recorded = alive = False
        sent_s = asyncio.get_running_loop().time()
        path = "/v1/review" if isinstance(request, ReviewRequest) else "/v1/guidance"
        span = self._telemetry.span(f"POST {path}", "client", headers, _span_attributes(self._http.base_url, path))
        try:
            async with aclosing(self._events(path, request, {**headers, **span.headers}, traffic, span)) as events:
                async for event in events:
                    alive = alive or isinstance(event, Guidance | Verdict)
                    if isinstance(event, Done):
                        recorded = True
                        self.breaker.succeeded()
                    yield event
        except CloudFailed as failure:
            recorded = True
            self._record(failure, sent_s)
            span.fail(failure.reason)
            raise
        finally:
            span.set({"gkt.left_early": not recorded})
            span.end()
            if not recorded and alive:
                # The answer needed no more guidance. The cloud itself is healthy.
                self.breaker.succeeded()
                self._connect_ahead()
            elif not recorded:
                self.breaker.abandoned()

    async def close(self) -> None:
        if self._connecting:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._http.aclose()

    def _connect_ahead(self) -> None:
        """Open a connection in the background: an abandoned stream loses its own, and the next request would wait for one."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(self._first_token_s):
                await self._http.get("/health")

    def _record(self, failure: CloudFailed, sent_s: float) -> None:
        if failure.retry_after_s is not None:
            self.breaker.hold(failure.retry_after_s)
        elif failure.reason in {FallbackReason.REJECTED, FallbackReason.UNAUTHORIZED, FallbackReason.RATE_LIMITED}:
            # The cloud is healthy and rejected the request. Another attempt costs a round trip, not a deadline.
            self.breaker.succeeded()
        else:
            # If no request received a byte for a whole deadline, there is nothing to learn from another attempt.
            self.breaker.failed(at_once=failure.waited and self._last_received_s < sent_s)

    async def _events(
        self, path: str, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic, span: Span
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a stream under its deadlines. Raises CloudFailed, whatever goes wrong."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._first_token_s
        timeout_reason = FallbackReason.FIRST_TOKEN_DEADLINE
        body = request.model_dump_json(exclude_defaults=True).encode()
        traffic.sent += len(body)
        headers = {**headers, "content-type": "application/json", HEADER: content_digest(body)}
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._http.send(
                    self._http.build_request("POST", path, content=body, headers=headers), stream=True
                )
                self._last_received_s = clock()
                if response.status_code != httpx.codes.OK:
                    await response.aread()
            span.set({"http.response.status_code": response.status_code})
            if response.status_code != httpx.codes.OK:
                raise _rejection(response)
            async with aclosing(decode(response)) as events:
                while True:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                    self._last_received_s = clock()
                    if isinstance(event, Failure):
                        reason = FallbackReason.UNAVAILABLE if event.retryable else FallbackReason.FAILED
                        raise CloudFailed(reason, event.code, retry_after_s=event.retry_after_s)
                    if isinstance(event, Guidance | Verdict):
                        timeout_reason = FallbackReason.STALLED
                        # After a verdict the teacher's first token is still to come.
                        wait_s = self._next_token_s if isinstance(event, Guidance) else self._first_token_s
                        deadline = clock() + wait_s
                    yield event
                    if isinstance(event, Done):
                        await _drain(events)
                        return
        except TimeoutError:
            raise CloudFailed(timeout_reason, waited=timeout_reason is FallbackReason.FIRST_TOKEN_DEADLINE) from None
        except StreamBroken as error:
            raise CloudFailed(FallbackReason.BROKEN, error.message) from error
        except StreamGarbled as error:
            raise CloudFailed(FallbackReason.GARBLED, error.message) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            waited = isinstance(error, httpx.ConnectTimeout)
            raise CloudFailed(FallbackReason.UNREACHABLE, type(error).__name__, waited=waited) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CloudFailed(FallbackReason.BROKEN, type(error).__name__) from error
        except CloudFailed:
            raise
        except Exception as error:
            # Libraries may raise anything on bytes that they do not expect. The student completes the answer all the same.
            logger.exception("unexpected error while reading the guidance stream")
            raise CloudFailed(FallbackReason.BROKEN, type(error).__name__) from error
        finally:
            if response is not None:
                traffic.received += response.num_bytes_downloaded
                with suppress(Exception):  # the connection may be broken
                    await response.aclose()


def _span_attributes(url: httpx.URL, path: str) -> Attributes:
    return {
        "http.request.method": "POST",
        "url.path": path,
        "server.address": url.host,
        "server.port": url.port,
    }


async def _drain(events: AsyncGenerator[Event, None]) -> None:
    """Read a complete stream to its end, which keeps the connection, unless the end takes longer than DRAIN_S."""
    with suppress(TimeoutError, StopAsyncIteration, StreamBroken, StreamGarbled, httpx.HTTPError):
        async with asyncio.timeout(DRAIN_S):
            await anext(events)


_REJECTIONS = {
    401: FallbackReason.UNAUTHORIZED,
    403: FallbackReason.UNAUTHORIZED,
    429: FallbackReason.RATE_LIMITED,
    502: FallbackReason.UNAVAILABLE,
    503: FallbackReason.UNAVAILABLE,
    504: FallbackReason.UNAVAILABLE,
}


def _rejection(response: httpx.Response) -> CloudFailed:
    status = response.status_code
    reason = _REJECTIONS.get(status)
    if reason is None:
        reason = FallbackReason.REJECTED if 400 <= status < 500 else FallbackReason.FAILED
    try:
        code = ErrorBody.model_validate_json(response.content).error.code
    except ValueError:
        code = None
    try:
        retry_after = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        retry_after = None
    return CloudFailed(reason, f"{status} {code or ''}".strip(), retry_after_s=retry_after)
