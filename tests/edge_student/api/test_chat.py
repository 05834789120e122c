"""The edge's endpoint as clients see it: a real uvicorn, the openai client and raw HTTP, scripted models behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from edge_student.app import create_app
from edge_student.cloud.client import CloudFailed
from edge_student.settings import EdgeSettings
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import FinishReason
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent
from tests.edge_student.scripted_edge import USER, edge
from tests.running import serving


async def test_the_openai_client_gets_an_answer() -> None:
    async with edge() as running:
        answer = await running.openai.chat.completions.create(model="gkt", messages=USER)
    assert answer.choices[0].message.content == "There are 18."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert [s["source"] for s in answer.gkt["segments"][0]] == ["teacher", "student"]


async def test_the_openai_client_gets_a_stream() -> None:
    async with edge() as running:
        stream = await running.openai.chat.completions.create(
            model="gkt", messages=USER, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    texts = [(c.gkt["source"], c.choices[0].delta.content) for c in chunks if c.choices and c.choices[0].delta.content]
    assert texts == [("teacher", "There"), ("student", " are"), ("student", " 18.")]
    ends = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    assert [c.choices[0].finish_reason for c in ends] == ["stop"]
    assert ends[0].gkt["student"]["completion_tokens"] == 2
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert all(c.choices for c in chunks[:-1])


async def test_a_stream_without_usage_has_a_choice_in_every_chunk_and_ends_in_done() -> None:
    async with edge() as running:
        text = (await running.chat(stream=True)).text
    events = [line.removeprefix("data: ") for line in text.split("\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert all(chunk["choices"] for chunk in chunks)
    assert all("finish_reason" in chunk["choices"][0] for chunk in chunks), "null, not absent, until the end"
    assert "usage" not in chunks[0]


async def test_line_separators_of_unicode_survive_the_stream() -> None:
    async with edge(ScriptedStudent("a\u2028b\u0085c", "\U0001f95a")) as running:
        stream = await running.openai.chat.completions.create(model="gkt-student", messages=USER, stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert text == "a\u2028b\u0085c\U0001f95a"


async def test_models_stand_for_modes() -> None:
    async with edge(cloud=ScriptedCloud("All", " of it", ends=FinishReason.STOP), teacher_max_tokens=50) as running:
        listed = [model.id async for model in running.openai.models.list()]
        assert listed == ["gkt", "gkt-student", "gkt-teacher"]
        assert (await running.http.get("/v1/models/gkt")).json()["id"] == "gkt"
        assert (await running.chat(model="gkt-student")).json()["gkt"]["mode"] == "off"
        assert running.cloud.requests == []
        whole = (await running.chat(model="gkt-teacher")).json()
        assert whole["choices"][0]["message"]["content"] == "All of it"
        assert running.cloud.requests[0].max_guidance_tokens == 50


async def test_a_request_decides_over_the_settings() -> None:
    async with edge() as running:
        await running.chat(gkt={"mode": "fixed", "max_guidance_tokens": 7, "template": "draft@2"})
        await running.chat(gkt={"mode": "off"})
        assert [(r.max_guidance_tokens, r.template) for r in running.cloud.requests] == [(7, "draft@2")]
        await running.chat(max_completion_tokens=1)
        assert running.cloud.requests[1].max_guidance_tokens == 1


async def test_a_fallback_is_in_the_answer_and_in_the_metrics() -> None:
    async with edge(cloud=ScriptedCloud(ends=CloudFailed(FallbackReason.STALLED))) as running:
        assert (await running.chat()).json()["gkt"]["fallback"] == "stalled"
        metrics = (await running.http.get("/metrics")).text
    assert 'gkt_edge_fallbacks_total{reason="stalled"} 1.0' in metrics


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"messages": []}, 400, "messages", "invalid_request"),
        ({"temperature": 3}, 400, "temperature", "invalid_request"),
        ({"top_p": 0}, 400, "top_p", "invalid_request"),
        ({"max_tokens": -1}, 400, "max_tokens", "invalid_request"),
        ({"n": 0}, 400, "n", "invalid_request"),
        ({"n": 100}, 400, "n", "invalid_request"),
        ({"stop": ["x"] * 10_000}, 400, "stop", "invalid_request"),
        ({"stop": ""}, 400, "stop", "invalid_request"),
        ({"top_logprobs": 3}, 400, "top_logprobs", "invalid_request"),
        ({"gkt": {"max_guidance_tokens": -5}}, 400, "gkt.max_guidance_tokens", "invalid_request"),
        ({"gkt": {"mode": "magic"}}, 400, "gkt.mode", "invalid_request"),
        ({"gkt": {"max_guidance": 5}}, 400, "gkt.max_guidance", "invalid_request"),
        ({"model": "gpt-4"}, 404, "model", "model_not_found"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "messages", "prompt_too_long"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages.0.role", "invalid_request"),
        ({"messages": [{"role": "user", "content": "x" * 2_100_000}]}, 413, None, "body_too_large"),
    ],
)
async def test_wrong_values_are_named(body: dict[str, Any], status: int, param: str | None, code: str) -> None:
    async with edge() as running:
        for stream in (False, True):
            response = await running.chat(**body, stream=stream)
            error = response.json()["error"]
            assert (response.status_code, error["param"], error["code"]) == (status, param, code)
            assert "x-request-id" in response.headers
        assert (await running.chat()).status_code == 200, "the next request works"


@pytest.mark.parametrize(
    "content",
    [
        b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": Infinity}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"messages": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b"not json",
        b"",
        b"null",
    ],
    ids=["utf-8", "surrogate", "nan", "infinity", "deep list", "deep object", "no json", "empty", "null"],
)
async def test_bad_bodies_are_a_clear_400(content: bytes) -> None:
    async with edge() as running:
        response = await running.http.post(
            "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert (await running.chat()).status_code == 200


async def test_unknown_fields_are_tolerated() -> None:
    async with edge() as running:
        assert (await running.chat(user="me", store=True, service_tier="auto", metadata={"a": "b"})).status_code == 200


async def test_content_in_parts_and_developer_messages() -> None:
    student = ScriptedStudent("ok")
    async with edge(student) as running:
        await running.chat(
            model="gkt-student",
            messages=[
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
        )
    assert student.sequences[0].prompt == "system:be brief\nuser:ab\n"


async def test_a_full_queue_is_503_with_retry_after_in_a_stream_too() -> None:
    async with edge(ScriptedStudent("x", room=0)) as running:
        for stream in (False, True):
            response = await running.chat(stream=stream)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "overloaded"


async def test_an_engine_that_dies_in_mid_stream_is_told_and_not_done() -> None:
    async with edge(ScriptedStudent("a", "b", dies_after=1)) as running:
        text = (await running.chat(model="gkt-student", stream=True)).text
        assert "[DONE]" not in text
        assert json.loads(text.strip().rsplit("data: ", 1)[1])["error"]["code"] == "engine_failed"
        whole = await running.chat(model="gkt-student")
        assert (whole.status_code, whole.json()["error"]["code"]) == (500, "engine_failed")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_the_student(stream: bool) -> None:
    student = ScriptedStudent("a", "b")
    student.gate.clear()
    async with edge(student) as running:
        body = {"messages": USER, "model": "gkt-student", "stream": stream}
        request = asyncio.create_task(running.http.post("/v1/chat/completions", json=body))
        while not (student.sequences and student.sequences[0].sampling):
            await asyncio.sleep(0.001)
        request.cancel()
        while not student.sequences[0].closed:
            await asyncio.sleep(0.001)


async def test_what_is_not_there_and_what_is_not_allowed() -> None:
    async with edge() as running:
        assert (await running.http.get("/nothing")).json()["error"]["code"] == "not_found"
        assert (await running.http.get("/v1/chat/completions")).status_code == 405
        assert (await running.http.get("/v1/models/gpt-4")).status_code == 404
        assert (await running.http.get("/health")).json()["status"] == "ok"


async def test_not_ready_until_the_student_is_loaded_and_failed_where_it_cannot_be() -> None:
    failed = asyncio.Event()
    app = create_app(EdgeSettings(model="/nowhere/model.gguf"), cloud=ScriptedCloud(), on_failure=failed.set)
    async with serving(app, ready=False) as url, httpx.AsyncClient(base_url=url) as http:
        await failed.wait()
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "failed")
        assert (await http.post("/v1/chat/completions", json={"messages": USER})).status_code == 503


async def test_a_request_id_is_kept_if_it_is_a_sane_one() -> None:
    async with edge() as running:
        kept = await running.http.post(
            "/v1/chat/completions", json={"messages": USER}, headers={"x-request-id": "my-id.1"}
        )
        assert kept.headers["x-request-id"] == kept.json()["gkt"]["request_id"] == "my-id.1"
        odd = await running.http.get("/health", headers={"x-request-id": "a b\tc"})
        assert odd.headers["x-request-id"] != "a b\tc"
