"""An edge on a real uvicorn, with scripted models behind it and the openai client in front."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from edge_student.app import create_app
from edge_student.settings import EdgeSettings
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent
from tests.running import serving

USER = [{"role": "user", "content": "How many eggs?"}]


@dataclass
class Running:
    url: str
    http: httpx.AsyncClient
    openai: Any
    """An `openai.AsyncOpenAI`, untyped, because its types do not have our fields."""
    student: ScriptedStudent
    cloud: ScriptedCloud

    async def chat(self, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json={"messages": USER, **body})


@asynccontextmanager
async def edge(
    student: ScriptedStudent | None = None, cloud: ScriptedCloud | None = None, **settings: Any
) -> AsyncGenerator[Running]:
    student = student or ScriptedStudent(" are", " 18.")
    cloud = cloud or ScriptedCloud("There", " x")
    app = create_app(EdgeSettings(max_guidance_tokens=2, **settings), student=student, cloud=cloud)
    async with (
        serving(app) as url,
        httpx.AsyncClient(base_url=url) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield Running(url, http, client, student, cloud)
