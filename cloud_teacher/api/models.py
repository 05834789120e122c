"""`GET /v1/models`: the teachers by the names that requests may ask for, as OpenAI lists models."""

from __future__ import annotations

from fastapi import APIRouter

from cloud_teacher.api.dependencies import CallerDep, CloudDep
from shared.protocol.openai_responses import ModelCard, ModelList

router = APIRouter()


@router.get("/v1/models")
async def models(cloud: CloudDep, caller: CallerDep) -> ModelList:
    """In their order: the first is asked where a request names none."""
    return ModelList(data=[ModelCard(id=name, created=cloud.started) for name in cloud.names])
