"""The logs of a process, and the texts that must not be in them."""

from __future__ import annotations

import httpx
import openai
import pytest
from fastapi import FastAPI

from shared.observability.logs import set_up_logs
from tests.running import serving


async def test_clients_of_http_say_nothing_of_each_request(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list", "data": []})
    caplog.set_level("INFO")
    set_up_logs("info")

    async with serving(app, ready=False) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        await client.models.list()
        async with httpx.AsyncClient(base_url=url) as plain:
            await plain.get("/v1/models")

    assert not [record for record in caplog.records if "HTTP Request" in record.getMessage()]
