"""`GET /v1/usage`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query

from cloud_teacher.api.dependencies import CallerDep, CloudDep
from cloud_teacher.auth.caller import Role
from shared.errors import NotFound
from shared.protocol.guidance import UsageReport

router = APIRouter()

Day = Annotated[date | None, Query()]


@router.get("/v1/usage")
async def usage(
    cloud: CloudDep, caller: CallerDep, key: str | None = None, since: Day = None, until: Day = None
) -> UsageReport:
    """Return the usage by day and key, both days included. Keys may read their own usage, operator keys that of all."""
    if cloud.store is None:
        raise NotFound("usage is not recorded, because GKT_CLOUD_STORE_URL is not set")
    if not caller.role.allows(Role.OPERATOR):
        if key not in {None, caller.name}:
            raise NotFound(f"this key may read only its own usage, under the name {caller.name!r}")
        key = caller.name
    days = await cloud.store.usage(key=key, since=since, until=until)
    return UsageReport(days=[day.to_wire() for day in days])
