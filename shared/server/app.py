"""What every app of ours has: request ids, one error handler, a limit on bodies, liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import (
    BodyTooLarge,
    ClientDisconnected,
    ClientError,
    GktError,
    InternalError,
    InvalidRequest,
    NotFound,
)
from shared.observability.logs import CURRENT_REQUEST, CurrentRequest
from shared.protocol.guidance import ErrorBody, ErrorDetail, Health
from shared.validation import first_problem

logger = logging.getLogger("gkt.service")

T = TypeVar("T")

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}")

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


def create_service(
    title: str,
    *,
    lifespan: Lifespan,
    readiness: Callable[[], Health],
    registries: Callable[[], list[CollectorRegistry]],
    max_body_bytes: int,
) -> FastAPI:
    """An app with all that is the same on both sides.

    `readiness` says whether requests can be served now; `registries` are shown at `/metrics`, in order.
    """
    app = FastAPI(title=title, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_middleware(RequestIds)
    app.add_exception_handler(GktError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_crash)

    @app.get("/health")
    async def health() -> Health:
        """The process answers."""
        return Health(status="ok")

    @app.get("/ready", response_model_exclude_none=True)
    async def ready(response: Response) -> Health:
        """Requests can be served: 200, or 503 with the reason."""
        state = readiness()
        if state.status != "ok":
            response.status_code = 503
        return state

    add_metrics(app, registries)
    return app


def add_metrics(app: FastAPI, registries: Callable[[], list[CollectorRegistry]]) -> None:
    """Add `/metrics`, which shows the registries in order and the number of the event loop's tasks."""
    own = CollectorRegistry()
    Gauge("gkt_tasks", "Tasks of the event loop", registry=own).set_function(lambda: len(asyncio.all_tasks()))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(b"".join(map(generate_latest, [*registries(), own])), media_type=CONTENT_TYPE_LATEST)


def request_id(request: Request) -> str:
    """The id of this request: the caller's `x-request-id` where it is a sane one, else a new one."""
    return str(request.scope["gkt_request_id"])


async def cancel_on_disconnect(work: Awaitable[T], request: Request) -> T:
    """The result of some work, which is cancelled if the client goes away: then raises ClientDisconnected.

    Only a response under way is watched by the server; before it begins nobody else would notice.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnected("the client went away")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def error_response(error: GktError) -> JSONResponse:
    """An error in OpenAI's shape, with its status and, where waiting helps, Retry-After in whole seconds."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(error).model_dump(), status_code=error.status, headers=headers)


def error_body(error: GktError) -> ErrorBody:
    return ErrorBody(
        error=ErrorDetail(
            message=error.message,
            type=error.kind,
            param=error.param,
            code=error.code,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )
    )


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GktError)  # noqa: S101 - what the handler is registered for
    if not isinstance(error, ClientError):
        logger.error("%s %s: %s: %s", request_id(request), request.url.path, error.code, error.message)
    return error_response(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    # Only the place and the complaint are told: the input itself may be large, private, or not even JSON (NaN).
    assert isinstance(error, RequestValidationError)  # noqa: S101
    if error.errors()[0]["type"] == "json_invalid":
        return error_response(InvalidRequest(f"the body is not valid JSON: {error.errors()[0]['ctx']['error']}"))
    problem = first_problem(error)
    param = problem.field.removeprefix("body").removeprefix(".") or None
    return error_response(InvalidRequest(f"{param or 'body'}: {problem.message}", param=param))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, GktError):  # FastAPI wraps whatever is raised while it reads a body
        return await _on_error(request, error.__cause__)
    if error.status_code == 404:
        return error_response(NotFound(f"there is nothing at {request.url.path}"))
    if error.status_code == 400:
        return error_response(InvalidRequest(str(error.detail)))
    detail = ErrorDetail(message=str(error.detail), type="invalid_request_error", code="http_error")
    return JSONResponse(ErrorBody(error=detail).model_dump(), status_code=error.status_code, headers=error.headers)


async def _on_crash(request: Request, error: Exception) -> Response:
    logger.error("%s %s crashed", request_id(request), request.url.path, exc_info=error)
    return error_response(InternalError("something went wrong here; the log has it under this request's id"))


class RequestIds:
    """Gives each request an id and puts it on the response as `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        identity = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["gkt_request_id"] = identity
        CURRENT_REQUEST.set(CurrentRequest(identity))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", identity.encode())]
            await send(message)

        await self.app(scope, receive, send_with_id)


class BodyLimit:
    """Refuses a body of more than `max_bytes`, declared or counted, before anything parses it."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            await error_response(self._error())(scope, receive, send)
            return
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise self._error()
            return message

        await self.app(scope, receive_counted, send)

    def _error(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self.max_bytes} bytes")
