"""FastAPI setup that all services share: request ids, error handlers, body limit, health and metrics endpoints."""

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
    """Create an app with the shared endpoints and error handlers.

    `/ready` returns the state that `readiness` returns; `/metrics` shows `registries` in order.
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
        """Return 200 while the process runs."""
        return Health(status="ok")

    @app.get("/ready", response_model_exclude_none=True)
    async def ready(response: Response) -> Health:
        """Return 200 if requests can be served, else 503 with the reason."""
        state = readiness()
        if state.status != "ok":
            response.status_code = 503
        return state

    add_metrics(app, registries)
    return app


def add_metrics(app: FastAPI, registries: Callable[[], list[CollectorRegistry]]) -> None:
    """Add `/metrics`, which shows the registries in order and the number of the event loop's tasks."""
    own = CollectorRegistry()
    name = f"{app.title.replace(' ', '_')}_tasks"
    Gauge(name, "Tasks of the event loop", registry=own).set_function(lambda: len(asyncio.all_tasks()))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(b"".join(map(generate_latest, [*registries(), own])), media_type=CONTENT_TYPE_LATEST)


def request_id(request: Request) -> str:
    """Return the id of this request: the caller's `x-request-id` if it is well-formed, else a new one."""
    return str(request.scope["gkt_request_id"])


async def cancel_on_disconnect(work: Awaitable[T], request: Request) -> T:
    """Return the result of `work`. If the client disconnects first, cancel it and raise ClientDisconnected.

    The server itself watches the connection only while a response is sent.
    """

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnected("the client disconnected")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def error_response(error: GktError) -> JSONResponse:
    """Return an error in OpenAI's shape, with Retry-After in whole seconds if the error has one."""
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
    assert isinstance(error, GktError)  # noqa: S101 - the handler is registered for it
    if not isinstance(error, ClientError):
        logger.error("%s %s: %s: %s", request_id(request), request.url.path, error.code, error.message)
    return error_response(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    # The message leaves the input out: it may be large, private or not JSON (NaN).
    assert isinstance(error, RequestValidationError)  # noqa: S101
    if error.errors()[0]["type"] == "json_invalid":
        return error_response(InvalidRequest(f"the body is not valid JSON: {error.errors()[0]['ctx']['error']}"))
    problem = first_problem(error)
    param = problem.field.removeprefix("body").removeprefix(".") or None
    return error_response(InvalidRequest(f"{param or 'body'}: {problem.message}", param=param))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, GktError):  # FastAPI wraps errors raised while it reads a body
        return await _on_error(request, error.__cause__)
    if error.status_code == 404:
        return error_response(NotFound(f"no endpoint at {request.url.path}"))
    if error.status_code == 400:
        return error_response(InvalidRequest(str(error.detail)))
    detail = ErrorDetail(message=str(error.detail), type="invalid_request_error", code="http_error")
    return JSONResponse(ErrorBody(error=detail).model_dump(), status_code=error.status_code, headers=error.headers)


async def _on_crash(request: Request, error: Exception) -> Response:
    logger.error("%s %s crashed", request_id(request), request.url.path, exc_info=error)
    return error_response(InternalError("internal server error; see the server log for this request id"))


class RequestIds:
    """Gives each request an id, and each response an `x-request-id` header."""

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
    """Rejects a body of more than `max_bytes`, declared or counted, before it is parsed."""

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
        return BodyTooLarge(f"the body is too large; the limit is {self.max_bytes} bytes")
