"""The edge's way to the cloud: one connection pool, deadlines, a breaker, and one kind of failure with a reason."""

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
from shared.observability.telemetry import OFF, Span, Telemetry
from shared.protocol.content_digest import HEADER, content_digest
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import Done, ErrorBody, Event, Failure, Guidance, GuidanceRequest, ReviewRequest, Verdict
from shared.protocol.sse import decode

logger = logging.getLogger("gkt.edge")

READ_OUT_S = 0.1


class CloudFailed(Exception):
    """There is no (more) guidance. What had arrived stays good."""

    def __init__(
        self, reason: FallbackReason, detail: str = "", *, retry_after_s: float | None = None, waited: bool = False
    ) -> None:
        """`waited`: a deadline passed before the first token."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.waited = waited


@dataclass
class Traffic:
    """Bytes of bodies over the link."""

    sent: int = 0
    received: int = 0


class Cloud(Protocol):
    """Where guidance comes from."""

    def guide(self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic) -> AsyncGenerator[Event, None]:
        """Events of one stream, of a review where that is asked for, `Done` last. Raises CloudFailed.

        Closing it early stops the teacher. `traffic` grows by what crosses the link.
        """
        ...

    async def close(self) -> None: ...


class NoCloud:
    """An edge without a cloud."""

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        raise CloudFailed(FallbackReason.NOT_CONFIGURED)
        yield  # pragma: no cover - makes this a generator

    async def close(self) -> None:
        pass


class HttpCloud:
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
        # Reads and writes are bounded by the deadlines below, which know what is being waited for.
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
        self._heard_s = 0.0
        """When the cloud last said anything to anybody."""
        self._warming: asyncio.Task[None] | None = None

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        if not self.breaker.allow():
            raise CloudFailed(FallbackReason.BREAKER_OPEN, "the cloud failed of late and is left alone for a while")
        judged = alive = False
        asked_s = asyncio.get_running_loop().time()
        path = "/v1/review" if isinstance(request, ReviewRequest) else "/v1/guidance"
        span = self._span(path, headers)
        try:
            async with aclosing(self._events(path, request, {**headers, **span.headers}, traffic, span)) as events:
                async for event in events:
                    alive = alive or isinstance(event, Guidance | Verdict)
                    if isinstance(event, Done):
                        judged = True
                        self.breaker.succeeded()
                    yield event
        except CloudFailed as failure:
            judged = True
            self._judge(failure, asked_s)
            span.fail(failure.reason)
            raise
        finally:
            span.set({"gkt.left_early": not judged})
            span.end()
            if not judged and alive:
                # Whoever takes over early leaves a cloud that is well.
                self.breaker.succeeded()
                self._warm()
            elif not judged:
                self.breaker.abandoned()

    async def close(self) -> None:
        if self._warming:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._http.aclose()

    def _span(self, path: str, headers: dict[str, str]) -> Span:
        """Of one call, below the request's."""
        url = self._http.base_url
        attributes = {
            "http.request.method": "POST",
            "url.path": path,
            "server.address": url.host,
            "server.port": url.port,
        }
        return self._telemetry.span(f"POST {path}", "client", headers, attributes)

    def _warm(self) -> None:
        """Open a connection beside the answer: a stream that was left takes its own with it, and the next would wait."""
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(self._first_token_s):
                await self._http.get("/health")

    def _judge(self, failure: CloudFailed, asked_s: float) -> None:
        if failure.retry_after_s is not None:
            self.breaker.hold(failure.retry_after_s)
        elif failure.reason in {FallbackReason.REJECTED, FallbackReason.UNAUTHORIZED, FallbackReason.RATE_LIMITED}:
            # The cloud is well and said no. Asking again costs a round trip, not a deadline.
            self.breaker.succeeded()
        else:
            # Where a whole deadline passed and nobody heard a byte, one more to wait for it would learn nothing.
            self.breaker.failed(surely=failure.waited and self._heard_s < asked_s)

    async def _events(
        self, path: str, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic, span: Span
    ) -> AsyncGenerator[Event, None]:
        """The stream with its deadlines. Whatever goes wrong leaves as CloudFailed."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._first_token_s
        late = FallbackReason.FIRST_TOKEN_DEADLINE
        body = request.model_dump_json(exclude_defaults=True).encode()
        traffic.sent += len(body)
        headers = {**headers, "content-type": "application/json", HEADER: content_digest(body)}
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._http.send(
                    self._http.build_request("POST", path, content=body, headers=headers), stream=True
                )
                self._heard_s = clock()
                if response.status_code != httpx.codes.OK:
                    await response.aread()
            span.set({"http.response.status_code": response.status_code})
            if response.status_code != httpx.codes.OK:
                raise _refusal(response)
            async with aclosing(decode(response)) as events:
                while True:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                    self._heard_s = clock()
                    if isinstance(event, Failure):
                        reason = FallbackReason.UNAVAILABLE if event.retryable else FallbackReason.FAILED
                        raise CloudFailed(reason, event.code, retry_after_s=event.retry_after_s)
                    if isinstance(event, Guidance | Verdict):
                        late = FallbackReason.STALLED
                        # Behind a verdict the teacher has yet to begin.
                        wait_s = self._next_token_s if isinstance(event, Guidance) else self._first_token_s
                        deadline = clock() + wait_s
                    yield event
                    if isinstance(event, Done):
                        await _read_out(events)
                        return
        except TimeoutError:
            raise CloudFailed(late, waited=late is FallbackReason.FIRST_TOKEN_DEADLINE) from None
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
            # Of the libraries below, on bytes that they did not expect. The student ends the answer all the same.
            logger.exception("what came from the cloud was too odd")
            raise CloudFailed(FallbackReason.BROKEN, type(error).__name__) from error
        finally:
            if response is not None:
                traffic.received += response.num_bytes_downloaded
                with suppress(Exception):  # what is left of a broken connection
                    await response.aclose()


async def _read_out(events: AsyncGenerator[Event, None]) -> None:
    """Read a complete stream to its end, which is there already or will not be waited for, to keep the connection."""
    with suppress(TimeoutError, StopAsyncIteration, StreamBroken, StreamGarbled, httpx.HTTPError):
        async with asyncio.timeout(READ_OUT_S):
            await anext(events)


_REFUSALS = {
    401: FallbackReason.UNAUTHORIZED,
    403: FallbackReason.UNAUTHORIZED,
    429: FallbackReason.RATE_LIMITED,
    502: FallbackReason.UNAVAILABLE,
    503: FallbackReason.UNAVAILABLE,
    504: FallbackReason.UNAVAILABLE,
}


def _refusal(response: httpx.Response) -> CloudFailed:
    status = response.status_code
    reason = _REFUSALS.get(status)
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
