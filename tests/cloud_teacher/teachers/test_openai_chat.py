"""A chat API as the teacher: the requests it gets, its answers as events, and the usage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import GenerationParams, OutputChunk, SchedulingHints
from cloud_teacher.teachers.openai_chat import ChatTeacher
from shared.errors import EngineFailed, InvalidRequest, NotReady, Overloaded, TooManyRequests
from shared.protocol.guidance import Done, Event, Failure, FinishReason, Guidance, Message, Start
from shared.protocol.sse import decode
from tests.cloud_teacher.scripted_upstream import PARIS, Upstream, delta, scripted, usage
from tests.running import serving

QUESTION = [Message(role="user", content="a secret question")]
ASKED = {"messages": [QUESTION[0].model_dump()], "max_guidance_tokens": 10}


@asynccontextmanager
async def teaching(upstream: Upstream, **entry: Any) -> AsyncGenerator[ChatTeacher]:
    made = TeacherEntry(**{"name": "gpt", "api": "chat", "url": upstream.url, **entry})
    teacher = ChatTeacher(made, max_model_len=1000, key="k")
    yield teacher
    await teacher.close()


async def written(teacher: ChatTeacher, answer: str = "", **sampling: Any) -> list[OutputChunk]:
    prompt = teacher.encode(QUESTION, answer)
    async with aclosing(teacher.stream("r", prompt, GenerationParams(**{"max_tokens": 10, **sampling}))) as pieces:
        return [piece async for piece in pieces]


def text(pieces: list[OutputChunk]) -> str:
    return "".join(piece.text for piece in pieces)


@asynccontextmanager
async def cloud(upstream: Upstream, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    chat = {"upstream_url": upstream.url, "upstream_api": "chat", "upstream_model": "gpt", "upstream_key": "sk-1"}
    app = create_app(CloudSettings(**{**chat, "coalesce": "off", **settings}))
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str = "/v1/guidance", **changes: Any) -> list[Event]:
    async with client.stream("POST", path, json={**ASKED, **changes}) as response:
        assert response.status_code == 200, await response.aread()
        return [event async for event in decode(response)]


async def test_a_cloud_is_guided_by_a_chat_api_and_counts_as_that_does() -> None:
    prices = {
        "input_usd_per_million": 1,
        "cached_input_usd_per_million": 0.5,
        "output_usd_per_million": 10,
    }
    async with scripted() as upstream, cloud(upstream, **prices) as client:
        start, *guidance, done = await ask(client)
    assert isinstance(start, Start)
    assert (start.model, start.tokenizer) == ("gpt", "")
    assert [(g.text, g.token_ids, g.count) for g in guidance if isinstance(g, Guidance)] == [
        ("Paris", [], 1), (" is it", [], 1),
    ]  # fmt: skip
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.STOP
    counted = done.usage.prompt_tokens, done.usage.cached_tokens, done.usage.completion_tokens, done.usage.estimated
    assert counted == (31, 16, 7, False)
    assert done.cost_usd == pytest.approx((15 * 1 + 16 * 0.5 + 7 * 10) / 1e6)
    assert upstream.keys == ["sk-1"]
    assert upstream.asked == [
        {
            "model": "gpt",
            "messages": [{"role": "user", "content": "a secret question"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": 10,
            "temperature": 0.0,
        }
    ]


async def test_only_what_differs_from_the_apis_own_is_asked_for_and_nothing_that_it_does_not_know() -> None:
    everything: dict[str, Any] = {
        "temperature": 0.7, "top_p": 0.9, "seed": 3, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "json_schema": {"type": "object"},
    }  # fmt: skip
    async with scripted() as upstream:
        async with teaching(upstream) as teacher:
            await written(teacher, **everything)
        async with teaching(upstream, extensions=True, token_limit="max_tokens") as teacher:
            prompt = teacher.encode(QUESTION)
            hints = SchedulingHints(priority=2, cache_salt="edge-1")
            async with aclosing(
                teacher.stream("r", prompt, GenerationParams(max_tokens=9, **everything), hints)
            ) as said:
                assert [piece async for piece in said]
        omit = ("temperature", "response_format", "stream_options")
        async with teaching(upstream, omit=omit, extra_body={"reasoning_effort": "minimal"}, model="o5") as teacher:
            await written(teacher, **everything)
    plain, extended, odd = upstream.asked
    standard = {"top_p": 0.9, "seed": 3, "presence_penalty": 0.1, "frequency_penalty": 0.2, "temperature": 0.7}
    schema = {"name": "answer", "strict": True, "schema": {"type": "object"}}
    as_json = {"response_format": {"type": "json_schema", "json_schema": schema}}
    same = {"stream": True, "messages": [QUESTION[0].model_dump()], "model": "gpt"}
    told = {"stream_options": {"include_usage": True}}
    assert plain == same | standard | as_json | told | {"max_completion_tokens": 10}
    told_always = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    beyond = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "priority": 2, "cache_salt": "edge-1"}
    assert extended == same | standard | as_json | told_always | beyond | {"max_tokens": 9}
    del standard["temperature"]
    assert odd == same | standard | {"model": "o5", "max_completion_tokens": 10, "reasoning_effort": "minimal"}


async def test_thoughts_are_no_guidance_but_count() -> None:
    says = [delta(reasoning_content="Hm."), delta(None, reasoning="So."), *PARIS[1:-1]]
    async with scripted(*says) as upstream, cloud(upstream) as client:
        _, *guidance, done = await ask(client)
    assert [g.text for g in guidance if isinstance(g, Guidance)] == ["Paris", " is it"]
    assert isinstance(done, Done)
    assert (done.usage.completion_tokens, done.usage.estimated) == (4, True)


async def test_without_a_word_on_usage_it_is_counted_here_and_said_so() -> None:
    async with scripted(*PARIS[:-1]) as upstream, cloud(upstream) as client:
        first, done = (await ask(client))[1::2]
        assert isinstance(first, Guidance)
        assert first.usage and first.usage.estimated
        assert isinstance(done, Done)
        assert (done.usage.completion_tokens, done.usage.estimated) == (2, True)
        assert 5 <= done.usage.prompt_tokens <= 20
        # With a tokenizer, the tokenizer counts.
        upstream.says = [delta("one two three"), delta(finish="length")]
        entry = TeacherEntry(name="gpt", api="chat", url=upstream.url)
        teacher = ChatTeacher(entry, max_model_len=100, count=lambda text: len(text.split()))
        assert [piece.count for piece in await written(teacher)] == [3, 0]
        await teacher.close()


async def test_usage_in_every_chunk_is_exact_wherever_the_stream_is_left() -> None:
    counted = [usage(completion_tokens=n) | delta(word) for n, word in enumerate([" a", " b\n", " c"], 1)]
    async with scripted(*counted, delta(finish="stop")) as upstream, cloud(upstream) as client:
        *_, done = await ask(client, stop_at_line_end=True)
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.HANDBACK
    assert (done.usage.completion_tokens, done.usage.estimated) == (2, False)


async def test_whole_words_wait_for_the_last_chunk_which_has_the_usage() -> None:
    words = [delta(word) for word in ["a", " b", " c", " d", " e", " f"]]
    async with (
        scripted(*words, delta(finish="length"), usage(completion_tokens=6)) as upstream,
        cloud(upstream) as client,
    ):
        _, *guidance, done = await ask(client, max_guidance_tokens=6, stop_at_word_boundary=True)
    assert [g.text for g in guidance if isinstance(g, Guidance)] == ["a", " b", " c"]
    assert isinstance(done, Done)
    assert (done.finish_reason, done.usage.completion_tokens) == (FinishReason.BUDGET, 6)
    assert not done.usage.estimated


async def test_a_string_that_ends_the_answer_is_found_here_even_across_chunks() -> None:
    says = [delta("one"), delta(" E"), delta("ND two"), delta(" three"), delta(finish="stop"), usage()]
    async with scripted(*says) as upstream, teaching(upstream) as teacher:
        pieces = await written(teacher, stop=("END",))
        assert (text(pieces), pieces[-1].end) == ("one END", "string")
        assert "stop" not in upstream.asked[0]
        plain = await written(teacher, stop=("never",))
        assert (text(plain), plain[-1].end) == ("one END two three", "stop")


async def test_probabilities_are_told_where_they_are_asked_for() -> None:
    chunk = delta("Paris is")
    chunk["choices"][0]["logprobs"] = {
        "content": [{"token": t, "logprob": p} for t, p in [("Paris", -0.1), (" is", -0.2)]]
    }
    async with scripted(chunk, delta(finish="stop")) as upstream, teaching(upstream) as teacher:
        first, *_ = await written(teacher, logprobs=True)
        assert (first.logprobs, first.count) == ([-0.1, -0.2], 2)
        assert upstream.asked[0]["logprobs"] is True


async def test_leaving_closes_the_stream_there() -> None:
    async with scripted(*PARIS, waits_before=2) as upstream, cloud(upstream) as client:
        async with client.stream("POST", "/v1/guidance", json=ASKED) as response:
            events = decode(response)
            async for event in events:
                if isinstance(event, Guidance):
                    break
            await events.aclose()
        await upstream.left.wait()


@pytest.mark.parametrize(
    ("continuation", "last", "more"),
    [
        (
            "flags",
            {"role": "assistant", "content": "2 +"},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
        ("prefix", {"role": "assistant", "content": "2 +", "prefix": True}, {}),
        ("trailing", {"role": "assistant", "content": "2 +"}, {}),
    ],
)
async def test_an_answer_is_gone_on_with_as_the_server_has_it(
    continuation: str, last: dict[str, Any], more: dict[str, Any]
) -> None:
    async with scripted() as upstream, teaching(upstream, continuation=continuation) as teacher:
        await written(teacher, "2 +")
        await written(teacher)
    behind, beginning = upstream.asked
    assert behind["messages"] == [QUESTION[0].model_dump(), last]
    assert {
        name: behind[name] for name in ("continue_final_message", "add_generation_prompt") if name in behind
    } == more
    assert "continue_final_message" not in beginning
    assert len(beginning["messages"]) == 1


async def test_or_it_is_asked_for_the_rest_in_words() -> None:
    async with scripted() as upstream, teaching(upstream, continuation="ask") as teacher:
        await written(teacher, "2 +")
        await written(teacher)
    behind, beginning = upstream.asked
    assert [message["role"] for message in behind["messages"]] == ["user"]
    content = behind["messages"][0]["content"]
    assert content.startswith("a secret question\n")
    assert content.endswith("\n2 +")
    assert beginning["messages"] == [QUESTION[0].model_dump()]


async def test_what_it_cannot_do_is_refused_with_a_code_before_anything_is_asked() -> None:
    async with scripted() as upstream, cloud(upstream) as client:
        with_answer = await client.post("/v1/guidance", json={**ASKED, "answer": "2 +"})
        review = await client.post("/v1/review", json={**ASKED, "draft": "is 4", "acceptance_threshold": 0.1})
        assert (with_answer.status_code, with_answer.json()["error"]["code"]) == (400, "continuation_unsupported")
        assert (review.status_code, review.json()["error"]["code"]) == (400, "review_unsupported")
        assert upstream.asked == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest), (401, EngineFailed), (404, EngineFailed), (422, InvalidRequest), (429, TooManyRequests),
        (500, EngineFailed), (502, NotReady), (503, Overloaded),
    ],
)  # fmt: skip
async def test_what_it_refuses_is_an_error_of_ours_without_its_words(status: int, error: type[Exception]) -> None:
    async with scripted(status=status, headers={"retry-after": "7"}) as upstream, teaching(upstream) as teacher:
        with pytest.raises(error) as raised:
            await written(teacher)
        assert "secret" not in str(raised.value)
        if status in {429, 502, 503}:
            assert getattr(raised.value, "retry_after_s", None) == 7.0


@pytest.mark.parametrize(
    ("says", "more"),
    [
        (PARIS[:2], {"ends": False}),
        (PARIS[:2], {}),
        ([delta("Paris"), {"error": {"message": "secret"}}], {}),
        ([delta("Paris"), delta(finish="content_filter")], {}),
        ([delta("Paris"), {"choices": [{"index": 0, "delta": None}]}], {}),
        ([delta("Paris"), {"choices": "secret"}], {}),
    ],
)
async def test_a_stream_that_breaks_fails_behind_what_it_said(says: list[dict[str, Any]], more: dict[str, Any]) -> None:
    async with scripted(*says, **more) as upstream, cloud(upstream) as client:
        _, *guidance, failure = await ask(client)
    assert [g.text for g in guidance if isinstance(g, Guidance)] == ["Paris"]
    assert isinstance(failure, Failure)
    assert failure.code == "engine_failed"
    assert "secret" not in failure.message


async def test_one_that_falls_silent_or_is_not_there_fails() -> None:
    async with scripted(*PARIS, waits_before=2) as upstream, teaching(upstream, silence_s=0.2) as teacher:
        with pytest.raises(EngineFailed, match="stopped sending"):
            await written(teacher)
    async with teaching(upstream) as teacher:
        with pytest.raises(NotReady):
            await written(teacher)
