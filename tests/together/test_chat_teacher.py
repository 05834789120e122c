"""Chat APIs as teachers, with real models: an edge's own (llama.cpp), and an edge that is guided through several."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cloud_teacher.app import create_app as create_cloud
from cloud_teacher.config.settings import CloudSettings
from edge_student.app import create_app as create_edge
from edge_student.settings import EdgeSettings
from tests.running import serving

pytestmark = pytest.mark.engine

SMOLLM = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "Explain in a few sentences why the sky is blue."}]


@asynccontextmanager
async def edge(**settings: Any) -> AsyncGenerator[str]:
    made = EdgeSettings(
        **{
            "model": SMOLLM,
            "context_tokens": 1024,
            "first_token_deadline_s": 120,
            "next_token_deadline_s": 60,
            **settings,
        }
    )
    async with serving(create_edge(made)) as url:
        yield url


async def chat(url: str, **gkt: Any) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=200) as client:
        response = await client.post("/v1/chat/completions", json={"messages": QUESTION, "max_tokens": 32, "gkt": gkt})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_an_edge_is_guided_by_chat_apis_of_which_it_may_name_one(tmp_path: Path) -> None:
    async with edge() as upstream:
        here = {"api": "chat", "url": f"{upstream}/v1", "model": "gkt-student"}
        away = {"api": "chat", "url": "http://127.0.0.1:9/v1"}
        names = [{"name": "away", **away}, {"name": "sky", **here, "tokenizer": SMOLLM}, {"name": "lone", **away}]
        file = tmp_path / "teachers.yaml"
        file.write_text(yaml.safe_dump(names))
        # Its guidance must be the beginning of the answer that it gives alone.
        whole = (await chat(upstream, mode="off"))["choices"][0]["message"]["content"]
        cloud = create_cloud(CloudSettings(teachers_file=file))
        async with serving(cloud) as cloud_url, edge(cloud_url=cloud_url, teacher="sky") as url:
            guided = await chat(url, mode="fixed", max_guidance_tokens=10)
            written_by_it = await chat(url, mode="teacher")
            stood_in = await chat(url, mode="fixed", max_guidance_tokens=10, teacher="away")
            reviewed = await chat(url, mode="review", acceptance_threshold=0.9)
            unknown = await chat(url, mode="fixed", max_guidance_tokens=10, teacher="nobody")
            lone = await chat(url, mode="fixed", max_guidance_tokens=10, teacher="lone")
    teacher, student = guided["gkt"]["segments"][0]
    assert (teacher["source"], student["source"]) == ("teacher", "student")
    text = guided["choices"][0]["message"]["content"]
    assert whole.startswith(text[: teacher["chars"]])
    assert guided["gkt"]["teacher"]["model"] == "sky"
    assert 0 < teacher["tokens"] <= guided["gkt"]["teacher"]["completion_tokens"] == 10
    assert guided["gkt"]["teacher"]["prompt_tokens"] > 20
    assert guided["gkt"]["fallback"] is None
    assert written_by_it["choices"][0]["message"]["content"] == whole
    assert [segment["source"] for segment in written_by_it["gkt"]["segments"][0]] == ["teacher"]
    assert (stood_in["gkt"]["teacher"]["model"], stood_in["gkt"]["fallback"]) == ("sky", None)
    # A feature that a chat API lacks, or a missing teacher, costs no answer.
    for answer, reason in [(reviewed, "rejected"), (lone, "unavailable"), (unknown, "rejected")]:
        assert answer["gkt"]["fallback"] == reason
        assert answer["choices"][0]["message"]["content"]
        assert {segment["source"] for segment in answer["gkt"]["segments"][0]} == {"student"}


async def test_one_that_cannot_go_on_with_an_answer_is_left_once_there_is_one() -> None:
    async with edge() as upstream:
        chat_api: dict[str, Any] = {
            "upstream_url": f"{upstream}/v1",
            "upstream_api": "chat",
            "upstream_model": "gkt-student",
        }
        async with (
            serving(create_cloud(CloudSettings(**chat_api))) as cloud_url,
            edge(cloud_url=cloud_url) as url,
        ):
            # Its first words are the teacher's; from then on there is an answer to go on with.
            answer = await chat(url, mode="on_demand", confidence_threshold=1.0, handback_after=1)
    assert answer["gkt"]["fallback"] == "rejected"
    assert answer["gkt"]["segments"][0][0]["source"] == "teacher"
    assert answer["gkt"]["segments"][0][-1]["source"] == "student"
    assert answer["usage"]["completion_tokens"] >= 32
