"""A cloud without an engine, before a server of token ids: SmolLM2 on llama.cpp as the teacher, over our own completions API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from cloud_teacher.app import create_app as create_cloud
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.model_files.conversion import ensure_folder
from cloud_teacher.model_files.tokenizer import FolderTokenizer
from cloud_teacher.teachers.base import GenerationParams, Prompt
from cloud_teacher.teachers.factory import entry_from_settings
from cloud_teacher.teachers.openai_completions import CompletionsTeacher
from edge_student.app import create_app as create_edge
from edge_student.settings import EdgeSettings
from shared.errors import ConfigurationError, EngineFailed, InvalidRequest, NotReady, Overloaded, TooManyRequests
from shared.protocol.guidance import Message
from tests.running import serving

pytestmark = pytest.mark.engine

SMOLLM = "smollm2-135m-instruct"
QUESTION = [Message(role="user", content="Explain in a few sentences why the sky is blue.")]


def teacher_of(url: str) -> CompletionsTeacher:
    settings = CloudSettings(
        model=SMOLLM,
        upstream_url=f"{url}/v1",
        upstream_model="gkt-student",
        max_model_len=1024,
        max_prompt_tokens=512,
    )
    return CompletionsTeacher(
        entry_from_settings(settings), FolderTokenizer(Path(ensure_folder(SMOLLM))), max_model_len=1024
    )


@asynccontextmanager
async def upstream() -> AsyncGenerator[str]:
    async with serving(create_edge(EdgeSettings(model=SMOLLM, context_tokens=1024))) as url:
        yield url


async def written(
    teacher: CompletionsTeacher, prompt: Prompt, **sampling: Any
) -> tuple[str, list[int], str | None, int]:
    pieces = [piece async for piece in teacher.stream("r", prompt, GenerationParams(**sampling))]
    assert [piece.end for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    tokens = [token for piece in pieces for token in piece.token_ids]
    return "".join(piece.text for piece in pieces), tokens, pieces[-1].end, pieces[0].cached_tokens


async def test_it_writes_scores_and_counts_as_the_server_does() -> None:
    async with upstream() as url:
        teacher = teacher_of(url)
        prompt = teacher.encode(QUESTION)
        ids = prompt.ids
        text, tokens, end, cached = await written(teacher, prompt, max_tokens=20)
        assert (len(tokens), end, cached) == (20, "limit", 0)
        assert teacher.decode(tokens) == text
        # Its own tokens are its own choices, and the cached ones are not computed again.
        scores = await teacher.score("r", ids + tokens, len(ids))
        assert len(scores.logprobs) == 20
        assert scores.ranks == [1] * 20
        assert scores.choices == tokens
        assert scores.cached_tokens == len(ids) - 1
        wrong = await teacher.score("r", [*ids, *teacher.encode_answer("Zebra")], len(ids))
        assert wrong.ranks[0] == 2
        assert wrong.logprobs[0] < min(scores.logprobs)
        assert wrong.choices[0] == tokens[0]
        line, _, end, cached = await written(teacher, prompt, max_tokens=200, stop=(".",), logprobs=True)
        assert end == "string"
        assert line.endswith(".")
        assert text.startswith(line) or line.startswith(text)
        assert cached == len(ids) - 1
        await teacher.close()


async def test_an_edge_is_guided_and_reviewed_through_it_and_survives_its_end() -> None:
    async with upstream() as teacher_url:
        cloud = create_cloud(
            CloudSettings(model=SMOLLM, upstream_url=f"{teacher_url}/v1", upstream_model="gkt-student")
        )
        async with serving(cloud) as cloud_url, _edge(cloud_url) as client:
            fixed = await _chat(client, mode="fixed", max_guidance_tokens=10)
            strict = await _chat(client, mode="review", acceptance_threshold=0.9, handback_after=2)
            trusting = await _chat(client, mode="review", acceptance_threshold=0.0)
            assert [segment["source"] for segment in fixed["gkt"]["segments"][0]] == ["teacher", "student"]
            assert fixed["gkt"]["teacher"]["model"] == "gkt-student"
            assert trusting["gkt"]["teacher"]["completion_tokens"] == 0
            for answer in (fixed, strict, trusting):
                assert answer["gkt"]["fallback"] is None
                assert answer["gkt"]["teacher"]["prompt_tokens"] > 0
    # The upstream has ended.
    cloud = create_cloud(CloudSettings(model=SMOLLM, upstream_url=f"{teacher_url}/v1"))
    async with serving(cloud) as cloud_url, _edge(cloud_url) as client:
        alone = await _chat(client, mode="fixed", max_guidance_tokens=10)
    assert alone["gkt"]["fallback"] == "unavailable"
    assert alone["choices"][0]["message"]["content"]


@asynccontextmanager
async def _edge(cloud_url: str) -> AsyncGenerator[httpx.AsyncClient]:
    settings = EdgeSettings(model=SMOLLM, cloud_url=cloud_url, context_tokens=1024, first_token_deadline_s=120.0)
    async with serving(create_edge(settings)) as url, httpx.AsyncClient(base_url=url, timeout=200) as client:
        yield client


async def _chat(client: httpx.AsyncClient, **gkt: Any) -> dict[str, Any]:
    body = {"messages": [message.model_dump() for message in QUESTION], "max_tokens": 32, "gkt": gkt}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (401, EngineFailed),
        (429, TooManyRequests),
        (500, EngineFailed),
        (503, Overloaded),
    ],
)
async def test_what_the_server_refuses_is_an_error_of_ours_without_its_words(
    status: int, error: type[Exception]
) -> None:
    app = FastAPI()

    @app.post("/v1/completions")
    def refuse() -> Any:
        from fastapi.responses import JSONResponse

        return JSONResponse({"error": {"message": "secret text"}}, status, headers={"retry-after": "7"})

    async with serving(app, ready=False) as url:
        teacher = teacher_of(url)
        with pytest.raises(error) as raised:
            await teacher.score("r", [1, 2], 1)
        await teacher.close()
    assert "secret" not in str(raised.value)
    if status in {429, 503}:
        assert getattr(raised.value, "retry_after_s", None) == 7.0
    teacher = teacher_of(url)
    with pytest.raises(NotReady):
        await written(teacher, Prompt([], "", conversation=[1, 2]), max_tokens=1)
    await teacher.close()


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        FolderTokenizer(tmp_path)
