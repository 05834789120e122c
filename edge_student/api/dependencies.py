"""FastAPI dependencies of the routes: the service object, and the check of the client's key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from edge_student.service import EdgeService


async def _edge(request: Request) -> EdgeService:  # `async`, because FastAPI runs other functions in a thread
    edge = request.state.edge
    assert isinstance(edge, EdgeService)  # noqa: S101 - the lifespan put it there
    return edge


EdgeDep = Annotated[EdgeService, Depends(_edge)]


async def authorized(request: Request, edge: EdgeDep) -> None:
    """Raise Unauthorized if the edge has keys and the request has none of them."""
    edge.keys.identify(request.headers.get("authorization"))
