"""`gkt cloud` with only remote teachers needs no engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
import yaml

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.teachers.factory import local_model_name
from shared.protocol.guidance import Done, Guidance, Start
from shared.protocol.sse import decode
from tests.cloud_teacher.scripted_upstream import scripted
from tests.processes import Process


@pytest.mark.system
async def test_teachers_elsewhere_need_no_engine_here(tmp_path: Path) -> None:
    async with scripted() as there:
        entries = [
            {"name": "away", "api": "chat", "url": "http://127.0.0.1:9/v1"},
            {"name": "there", "api": "chat", "url": there.url},
        ]
        (tmp_path / "teachers.yaml").write_text(yaml.safe_dump(entries))
        environment = {"GKT_CLOUD_TEACHERS_FILE": str(tmp_path / "teachers.yaml"), "GKT_CLOUD_MODEL": "no-such-model"}
        process = Process("gkt", environment, tmp_path, "cloud")
        try:
            await asyncio.to_thread(process.wait_until_ready)
            request = {"messages": [{"role": "user", "content": "Where?"}], "max_guidance_tokens": 20}
            async with (
                httpx.AsyncClient(base_url=process.url()) as client,
                client.stream("POST", "/v1/guidance", json=request) as response,
            ):
                assert response.status_code == 200, await response.aread()
                start, *guidance, done = [event async for event in decode(response)]
            assert not any("EngineCore" in title for title in process.family().values())
        finally:
            status = process.end()
    assert isinstance(start, Start)
    assert start.model == "there"
    assert "".join(event.text for event in guidance if isinstance(event, Guidance)) == "Paris is it"
    assert isinstance(done, Done)
    assert status == 0


def test_the_engine_here_is_the_one_that_the_file_names(tmp_path: Path) -> None:
    entries = [
        {"name": "there", "api": "chat", "url": "http://there/v1"},
        {"name": "here", "api": "vllm", "model": "smollm2-135m-instruct"},
    ]
    (tmp_path / "teachers.yaml").write_text(yaml.safe_dump(entries))
    assert local_model_name(CloudSettings(teachers_file=tmp_path / "teachers.yaml")) == "smollm2-135m-instruct"
    assert local_model_name(CloudSettings(model="some-model")) == "some-model"
    assert local_model_name(CloudSettings(upstream_url="http://there/v1")) is None
