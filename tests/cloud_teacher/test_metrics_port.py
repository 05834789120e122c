from __future__ import annotations

import socket

import httpx
import pytest

from cloud_teacher.app import create_app
from cloud_teacher.settings import CloudSettings
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.running import serving


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_metrics_have_a_port_of_their_own_and_nothing_else_is_there() -> None:
    port = free_port()
    settings = CloudSettings(metrics_port=port, max_prompt_tokens=100, max_model_len=200)
    async with serving(create_app(settings, teacher=ScriptedTeacher("Hello"))) as url, httpx.AsyncClient() as client:
        metrics = await client.get(f"http://127.0.0.1:{port}/metrics")
        assert "gkt_guidance_requests_total" in metrics.text
        assert "fake_generation_tokens_total" in metrics.text, "the engine's too, though it came later"
        names = [line for line in metrics.text.splitlines() if line.startswith("# TYPE")]
        api = (await client.get(f"{url}/metrics")).text
        assert names == [line for line in api.splitlines() if line.startswith("# TYPE")]

        asked = await client.post(f"http://127.0.0.1:{port}/v1/guidance", json={})
        assert "text/event-stream" not in asked.headers.get("content-type", "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")
