"""What routes depend on: the service object, and a client that has a key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from edge_student.service import EdgeService


async def _edge(request: Request) -> EdgeService:  # without `async` each request would wait for a thread
    edge = request.state.edge
    assert isinstance(edge, EdgeService)  # noqa: S101 - the lifespan put it there
    return edge


TheEdge = Annotated[EdgeService, Depends(_edge)]


async def authorized(request: Request, edge: TheEdge) -> None:
    """Lets through who has a key, and everybody where none are set. Raises Unauthorized."""
    edge.keys.identify(request.headers.get("authorization"))
