"""Behaviour that clients expect of an OpenAI-compatible server, after the tests of llama.cpp's server and of openai-python.

The real openai client, a real edge process, a real student (SmolLM2-135M), no cloud.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest

from tests.processes import Process

pytestmark = pytest.mark.system

QUESTION = [{"role": "user", "content": "Write five sentences about rivers."}]
MAX_SEQUENCES = 4
END = 2
"""Token that ends an answer of SmolLM2."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = {
        "GKT_EDGE_MODEL": "smollm2-135m-instruct",
        "GKT_EDGE_CONTEXT_TOKENS": "2048",
        "GKT_EDGE_MAX_SEQUENCES": str(MAX_SEQUENCES),
    }
    process = Process("edge_student", environment, tmp_path_factory.mktemp("edge"))
    try:
        process.wait_until_ready()
        yield process.url()
        process.end()
        assert process.orphans() == {}
    finally:
        process.kill()


@pytest.fixture
async def client(url: str) -> AsyncGenerator[Any]:
    """An `openai.AsyncOpenAI`, untyped, so that a test may send what its types forbid."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


async def chat(client: Any, **options: Any) -> Any:
    request = {"model": "gkt", "messages": QUESTION, "max_tokens": 8, **options}
    return await client.chat.completions.create(**request)


async def chunks(client: Any, **options: Any) -> list[Any]:
    return [chunk async for chunk in await chat(client, stream=True, **options)]


def text_of(stream: list[Any], index: int = 0) -> str:
    deltas = [choice.delta for chunk in stream for choice in chunk.choices if choice.index == index]
    return "".join(delta.content or "" for delta in deltas)


async def test_a_stream_has_the_role_first_one_id_and_one_finish_reason(client: Any) -> None:
    stream = await chunks(client)
    assert stream[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.role for chunk in stream[1:]] == [None] * (len(stream) - 1)
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in stream}) == 1
    assert stream[0].id.startswith("chatcmpl-")
    assert (stream[0].object, stream[0].model) == ("chat.completion.chunk", "gkt")
    assert [c.choices[0].finish_reason for c in stream] == [None] * (len(stream) - 1) + ["length"]
    assert stream[-1].choices[0].delta.content is None


async def test_the_usage_comes_last_and_only_where_it_is_asked_for(client: Any) -> None:
    for options in ({}, {"stream_options": {"include_usage": False}}):
        assert [chunk.usage for chunk in await chunks(client, **options) if chunk.usage] == []
    stream = await chunks(client, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in stream[:-1] if chunk.usage] == []
    assert stream[-1].choices == []
    whole = await chat(client)
    assert (stream[-1].usage.prompt_tokens, stream[-1].usage.completion_tokens) == (whole.usage.prompt_tokens, 8)
    assert whole.usage.completion_tokens == 8
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 8


async def test_a_stream_and_a_whole_answer_say_the_same(client: Any) -> None:
    whole = await chat(client, max_tokens=24)
    assert text_of(await chunks(client, max_tokens=24)) == whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant"
    assert whole.object == "chat.completion"


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_ends_with_length_and_the_model_with_stop(client: Any, limit: str) -> None:
    request = {"model": "gkt", "messages": QUESTION}
    cut = await client.chat.completions.create(**request, **{limit: 3})
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)
    short = [{"role": "user", "content": "Say hi."}]
    ended = await client.chat.completions.create(model="gkt", messages=short, **{limit: 500})
    assert ended.choices[0].finish_reason == "stop"
    assert ended.usage.completion_tokens < 500


async def test_one_seed_gives_one_text_and_others_give_others(client: Any) -> None:
    async def drawn(seed: int) -> str:
        answer = await chat(client, temperature=1.0, seed=seed, max_tokens=12)
        text: str = answer.choices[0].message.content
        return text

    assert await drawn(11) == await drawn(11)
    assert len({await drawn(seed) for seed in range(3)}) > 1


async def test_choices_are_numbered_and_each_ends(client: Any) -> None:
    answer = await chat(client, n=3, temperature=1.0, seed=5, max_tokens=16)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens == 48
    stream = await chunks(client, n=3, temperature=1.0, seed=5, max_tokens=16)
    assert [stream[i].choices[0].delta.role for i in range(3)] == ["assistant"] * 3
    ends = [c.choices[0] for c in stream if c.choices[0].finish_reason]
    assert sorted((end.index, end.finish_reason) for end in ends) == [(i, "length") for i in range(3)]


async def test_log_probabilities_of_a_conversation(client: Any) -> None:
    answer = (await chat(client, logprobs=True, top_logprobs=3)).choices[0]
    entries = answer.logprobs.content
    assert len(entries) == 8
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == answer.message.content
    for entry in entries:
        tops = [top.logprob for top in entry.top_logprobs]
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)
        assert entry.logprob == tops[0] <= 0, "greedy takes the most probable one"
        assert sum(map(math.exp, tops)) <= 1 + 1e-6
    streamed = await chunks(client, logprobs=True)
    streamed_entries = [e for chunk in streamed if chunk.choices[0].logprobs for e in chunk.choices[0].logprobs.content]
    assert [entry.token for entry in streamed_entries] == [entry.token for entry in entries]
    assert (await chat(client)).choices[0].logprobs is None


async def test_log_probabilities_of_a_prompt_are_those_that_writing_it_had(client: Any) -> None:
    options = {"model": "gkt", "temperature": 0.0, "logprobs": 2}
    written = (await client.completions.create(prompt="The capital of France is", max_tokens=12, **options)).choices[0]
    text = "The capital of France is" + written.text
    echoed = (await client.completions.create(prompt=text, echo=True, max_tokens=0, **options)).choices[0]
    assert echoed.text == text
    assert "".join(echoed.logprobs.tokens) == text
    assert echoed.logprobs.token_logprobs[0] is None
    assert all(
        text.startswith(t, at) for t, at in zip(echoed.logprobs.tokens, echoed.logprobs.text_offset, strict=True)
    )
    same = echoed.logprobs.token_logprobs[-12:]
    assert same == pytest.approx(written.logprobs.token_logprobs, abs=0.5), "up to the rounding of other batch shapes"
    greedy = [max(top.values()) for top in echoed.logprobs.top_logprobs[-12:]]
    assert same == pytest.approx(greedy, abs=0.5)


async def test_a_prompt_of_tokens_is_that_of_their_text(client: Any) -> None:
    options = {"model": "gkt", "max_tokens": 6, "temperature": 0.0}
    ids = [504, 3575, 282]  # "The capital of"
    by_ids = (await client.completions.create(prompt=[ids, ids], echo=True, **options)).choices
    by_text = (await client.completions.create(prompt=by_ids[0].text, echo=True, max_tokens=0, model="gkt")).usage
    assert by_text.prompt_tokens == len(ids) + 6
    assert by_ids[0].text == by_ids[1].text


async def test_no_part_of_a_stop_string_is_ever_sent(client: Any) -> None:
    free = (await chat(client, max_tokens=48)).choices[0].message.content
    words = free.split()
    # Several tokens across a word boundary, so that the stop string's beginning comes in a piece of its own.
    stop = f"{words[8]} {words[9]} {words[10][:2]}"
    stream = await chunks(client, max_tokens=48, stop=["never said", stop])
    before = free[: free.index(stop)]
    assert text_of(stream) == before
    sent = ""
    for chunk in stream:
        sent += chunk.choices[0].delta.content or ""
        assert before.startswith(sent)
    assert stream[-1].choices[0].finish_reason == "stop"


WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
TOOLS = [{"type": "function", "function": WEATHER}]


async def test_a_tool_is_called_and_its_result_answered(client: Any) -> None:
    asked = {"role": "user", "content": "What is the weather in Oslo?"}
    options = {"tools": TOOLS, "max_tokens": 60}
    answer = (await chat(client, messages=[asked], tool_choice="required", **options)).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    [call] = answer.message.tool_calls
    assert call.function.name == "weather"
    assert list(json.loads(call.function.arguments)) == ["city"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "4 mm of rain"}
    after = await chat(client, messages=[asked, answer.message, result], **options, tool_choice="none")
    assert after.choices[0].message.content
    assert after.choices[0].message.tool_calls is None


async def test_the_clients_own_helper_puts_a_streamed_call_together(client: Any) -> None:
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
    choice = {"type": "function", "function": {"name": "weather"}}
    request = {"model": "gkt", "messages": asked, "tools": TOOLS, "tool_choice": choice, "max_tokens": 60}
    whole = (await chat(client, **request)).choices[0]
    async with client.chat.completions.stream(**request) as stream:
        kinds = {event.type async for event in stream}
        final = (await stream.get_final_completion()).choices[0]
    assert "tool_calls.function.arguments.delta" in kinds
    assert "content.delta" not in kinds
    assert final.message.content is None
    assert (final.finish_reason, whole.finish_reason) == ("stop", "stop")
    [streamed], [made] = final.message.tool_calls, whole.message.tool_calls
    assert streamed.function.arguments == made.function.arguments
    assert streamed.function.parsed_arguments == json.loads(made.function.arguments)


async def test_a_call_that_is_cut_says_so(client: Any) -> None:
    answer = (await chat(client, tools=TOOLS, tool_choice="required", max_tokens=9)).choices[0]
    assert answer.finish_reason == "length"
    for call in answer.message.tool_calls or []:
        assert call.function.name == "weather"


async def test_models_are_listed_and_found(client: Any) -> None:
    listed = [model async for model in client.models.list()]
    assert [model.id for model in listed] == ["gkt", "gkt-student", "gkt-teacher"]
    assert (await client.models.retrieve("gkt")).object == "model"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4")


@pytest.mark.parametrize(
    ("options", "error", "param", "code"),
    [
        ({"temperature": 9}, openai.BadRequestError, "temperature", "invalid_request"),
        ({"messages": []}, openai.BadRequestError, "messages", "invalid_request"),
        ({"messages": [{"content": "x"}]}, openai.BadRequestError, "messages.0.role", "invalid_request"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens", "invalid_request"),
        (
            {"messages": [{"role": "user", "content": "x " * 4000}]},
            openai.BadRequestError,
            "messages",
            "prompt_too_long",
        ),
        ({"model": "gpt-4"}, openai.NotFoundError, "model", "model_not_found"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_errors_have_openais_shape(
    client: Any, options: dict[str, Any], error: type[openai.APIStatusError], param: str, code: str, stream: bool
) -> None:
    with pytest.raises(error) as raised:
        await chat(client, stream=stream, **options)
    assert (raised.value.param, raised.value.code, raised.value.type) == (param, code, "invalid_request_error")
    assert raised.value.message
    assert raised.value.request_id


async def test_fields_that_nobody_knows_are_tolerated(client: Any) -> None:
    extra = {"cache_prompt": True, "user": "me", "some_new_field": {"a": [1]}}
    answer = await chat(client, extra_body=extra, store=False, service_tier="auto")
    assert answer.choices[0].message.content


async def test_any_key_will_do(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        body = {"messages": QUESTION, "max_tokens": 1}
        for headers in ({}, {"authorization": "Bearer sk-none"}):
            assert (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200


async def sequences(url: str) -> float:
    async with httpx.AsyncClient(base_url=url) as http:
        found = re.search(r"^gkt_edge_sequences (\S+)$", (await http.get("/metrics")).text, re.MULTILINE)
    assert found
    return float(found[1])


async def test_a_client_that_leaves_in_mid_stream_frees_the_engine(client: Any, url: str) -> None:
    # More of them than the engine computes at once: who waits for a turn leaves too. None ends before that by itself.
    endless = {"max_tokens": 1500, "logit_bias": {str(END): -100}}
    streams = await asyncio.gather(*[chat(client, stream=True, **endless) for _ in range(MAX_SEQUENCES)])
    waiting = [asyncio.create_task(chat(client, **endless)) for _ in range(2)]
    async with aclosing(streams[0].response.aiter_bytes()) as first:
        await anext(first)
        while await sequences(url) < MAX_SEQUENCES + 2:
            await asyncio.sleep(0.01)
    for stream in streams:
        await stream.close()
    for task in waiting:
        task.cancel()
    while await sequences(url):
        await asyncio.sleep(0.01)
    assert (await chat(client)).choices[0].finish_reason == "length"
