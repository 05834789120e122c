"""`GET /v1/models`: the names that requests can give as their model. Each stands for a mode."""

from __future__ import annotations

from fastapi import APIRouter

from edge_student.api.dependencies import EdgeDep
from edge_student.policy import MODEL_MODES
from edge_student.service import EdgeService
from shared.errors import UnknownModel
from shared.protocol.openai_responses import ModelCard, ModelList

router = APIRouter(prefix="/v1")


@router.get("/models")
async def models(edge: EdgeDep) -> ModelList:
    return ModelList(data=[_card(name, edge) for name in MODEL_MODES])


@router.get("/models/{name}")
async def model(name: str, edge: EdgeDep) -> ModelCard:
    if name not in MODEL_MODES:
        raise UnknownModel(f"unknown model {name!r}; available: {', '.join(MODEL_MODES)}", param="model")
    return _card(name, edge)


def _card(name: str, edge: EdgeService) -> ModelCard:
    return ModelCard(id=name, created=edge.started)
