"""FastAPI dependencies of the routes: the service object and the caller of a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from cloud_teacher.auth.caller import Caller
from cloud_teacher.service import CloudService


async def _cloud(request: Request) -> CloudService:  # a plain function would wait for a thread
    cloud = request.state.cloud
    assert isinstance(cloud, CloudService)  # noqa: S101 - set by the lifespan
    return cloud


CloudDep = Annotated[CloudService, Depends(_cloud)]


async def _caller(request: Request, cloud: CloudDep) -> Caller:
    return cloud.keys.identify(request.headers.get("authorization"))


CallerDep = Annotated[Caller, Depends(_caller)]
