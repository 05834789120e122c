"""`POST /v1/guidance` and `POST /v1/review`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse

from cloud_teacher.api.dependencies import CallerDep, CloudDep
from cloud_teacher.auth.caller import Caller
from cloud_teacher.service import CloudService
from shared.observability.telemetry import trace_headers
from shared.protocol.content_digest import HEADER, check_digest
from shared.protocol.guidance import Event, GuidanceRequest, ReviewRequest
from shared.protocol.sse import encode, with_first
from shared.server.app import cancel_on_disconnect, request_id


async def _check_digest(request: Request) -> None:
    check_digest(request.headers.get(HEADER), await request.body())


router = APIRouter(dependencies=[Depends(_check_digest)])


@router.post("/v1/guidance", response_model=None)
async def guidance(body: GuidanceRequest, request: Request, cloud: CloudDep, caller: CallerDep) -> EventSourceResponse:
    """Stream the beginning of an answer as events: `start`, `guidance`, then `done` or `error`."""
    return await _stream(body, request, cloud, caller)


@router.post("/v1/review", response_model=None)
async def review(body: ReviewRequest, request: Request, cloud: CloudDep, caller: CallerDep) -> EventSourceResponse:
    """Review a draft, as events: `start`, `verdict`, `guidance` in place of a rejected part, then `done` or `error`."""
    return await _stream(body, request, cloud, caller)


async def _stream(body: GuidanceRequest, request: Request, cloud: CloudService, caller: Caller) -> EventSourceResponse:
    trace = trace_headers(request.headers)
    chunks = _encoded(cloud.guidance.answer(body, request_id=request_id(request), caller=caller, trace=trace))
    try:
        # Errors before the first event are raised here, and get their own status.
        first = await cancel_on_disconnect(anext(chunks), request)
    except BaseException:
        await chunks.aclose()  # which also leaves the queue
        raise
    return EventSourceResponse(with_first(first, chunks), headers={"cache-control": "no-cache"})


async def _encoded(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield encode(event)
