"""What routes depend on: the service object and the caller of a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from cloud_teacher.auth.caller import Caller
from cloud_teacher.service import Cloud


async def _cloud(request: Request) -> Cloud:  # without `async` each request would wait for a thread
    cloud = request.state.cloud
    assert isinstance(cloud, Cloud)  # noqa: S101 - the lifespan put it there
    return cloud


TheCloud = Annotated[Cloud, Depends(_cloud)]


async def _caller(request: Request, cloud: TheCloud) -> Caller:
    return cloud.keys.identify(request.headers.get("authorization"))


TheCaller = Annotated[Caller, Depends(_caller)]
