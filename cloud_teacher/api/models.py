"""`GET /v1/models`: the teachers that requests may name, in OpenAI's format."""

from __future__ import annotations

from fastapi import APIRouter

from cloud_teacher.api.dependencies import CallerDep, CloudDep
from shared.protocol.openai_responses import ModelCard, ModelList

router = APIRouter()


@router.get("/v1/models")
async def models(cloud: CloudDep, caller: CallerDep) -> ModelList:
    """Return the teachers in order. The first one is the default."""
    return ModelList(data=[ModelCard(id=name, created=cloud.started) for name in cloud.names])
