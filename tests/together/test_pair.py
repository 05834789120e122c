"""The main job on real models: SmolLM2 on vLLM begins the answer over HTTP, a student on llama.cpp ends it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import llama_cpp
import openai
import pytest

from edge_student.app import create_app
from edge_student.llama.student import LlamaStudent
from edge_student.settings import EdgeSettings
from shared.model_hub.local_models import ensure_gguf
from tests.conftest import CloudProcess
from tests.running import serving

SMOLLM = "smollm2-135m-instruct"
QWEN = "qwen2.5-coder-0.5b-instruct"
QUESTION = [{"role": "user", "content": "Explain in a few sentences why the sky is blue."}]
BUDGET = 24
WHOLE = 48
ENGINE_TOKENS = re.compile(r"^vllm:generation_tokens_total\{[^}]*\} ([\d.e+]+)$", re.MULTILINE)


@asynccontextmanager
async def edge(cloud: CloudProcess, *, model: str = SMOLLM, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """Run an edge with a real student in front of the cloud, or of `cloud_url`."""
    options = {"cloud_url": cloud.url, "cloud_key": cloud.key, "max_guidance_tokens": BUDGET, "context_tokens": 1024}
    # The deadlines are wide where they are not the test's subject: the machine has two cores, and vLLM may hold both.
    deadlines = {"first_token_deadline_s": 120.0, "next_token_deadline_s": 60.0, "breaker_failures": 100}
    app = create_app(EdgeSettings(model=model, **{**options, **deadlines, **settings}))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=280) as client:
        yield client


async def chat(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json={"messages": QUESTION, "max_tokens": WHOLE, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def chunks(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    request = {"messages": QUESTION, "max_tokens": WHOLE, "stream": True, **body}
    response = await client.post("/v1/chat/completions", json=request)
    events = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def text_of(stream: list[dict[str, Any]], source: str | None = None) -> str:
    return "".join(
        chunk["choices"][0]["delta"].get("content", "")
        for chunk in stream
        if chunk["choices"] and (source is None or chunk.get("gkt", {}).get("source") == source)
    )


def alone(model: str, guidance: str, count: int) -> str:
    """Compute prompt, guidance and greedy decoding in one process, with llama-cpp-python's own loop."""
    path = ensure_gguf(model)
    # The same kernels and threads as the engine's: other ones add up in another order.
    llama = llama_cpp.Llama(str(path), n_ctx=1024, flash_attn=True, n_threads=1, n_threads_batch=1, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    template = llama.metadata["tokenizer.chat_template"]
    formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(template, eos_token="", bos_token="")
    prompt = formatter(messages=QUESTION).prompt
    ids = llama.tokenize(prompt.encode(), add_bos=False, special=True)
    # In two steps, as both are shorter than 64 tokens then: from there on llama.cpp's attention rounds otherwise.
    llama.eval(ids)
    if guidance:
        llama.eval(llama.tokenize(guidance.encode(), add_bos=False, special=False))
    text = b""
    for _ in range(count):
        token = llama.sample(temp=0.0)
        if llama_cpp.llama_vocab_is_eog(vocab, token):
            break
        text += llama.detokenize([token])
        llama.eval([token])
    llama.close()
    return text.decode()


async def test_the_student_ends_what_the_teacher_begins_byte_for_byte(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process) as client:
        answer = await chat(client)
    gkt = answer["gkt"]
    text = answer["choices"][0]["message"]["content"]
    teacher, student = gkt["segments"][0]
    assert (teacher["source"], student["source"]) == ("teacher", "student")
    # In whole words: up to three tokens of the budget are left for a word that would not fit.
    written = gkt["teacher"]["completion_tokens"]
    assert BUDGET - 3 <= written <= BUDGET
    assert gkt["template"].startswith("answer@1#")
    assert gkt["fallback"] is None
    guidance = text[: teacher["chars"]]
    assert text[teacher["chars"] :] == alone(SMOLLM, guidance, WHOLE - written)
    direct = httpx.post(
        f"{cloud_process.url}/v1/guidance",
        json={"messages": QUESTION, "max_guidance_tokens": BUDGET, "stop_at_word_boundary": True},
        headers=cloud_process.headers,
        timeout=120,
    )
    whole = "".join(json.loads(d)["text"] for d in re.findall(r"event: guidance\ndata: (.*)", direct.text))
    assert whole.startswith(guidance)
    assert not guidance.endswith(" ")
    assert whole[len(guidance) :].lstrip().count(" ") == 0, "no more than the last word is dropped"


async def test_streamed_or_not_the_answer_is_the_same_and_each_chunk_says_its_source(
    cloud_process: CloudProcess,
) -> None:
    async with edge(cloud_process) as client:
        whole = await chat(client)
        stream = await chunks(client)
    text = whole["choices"][0]["message"]["content"]
    assert text_of(stream) == text
    split = whole["gkt"]["segments"][0][0]["chars"]
    assert (text_of(stream, "teacher"), text_of(stream, "student")) == (text[:split], text[split:])
    sources = [chunk["gkt"]["source"] for chunk in stream if "source" in chunk.get("gkt", {})]
    assert sources == sorted(sources, reverse=True), "first all of the teacher, then all of the student"


async def test_two_vocabularies(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process, model=QWEN) as client:
        answer = await chat(client)
    assert [s["source"] for s in answer["gkt"]["segments"][0]] == ["teacher", "student"]
    assert answer["gkt"]["student"]["model"] == QWEN
    assert answer["gkt"]["teacher"]["model"] == SMOLLM
    assert answer["usage"]["completion_tokens"] <= WHOLE


async def test_the_openai_client(cloud_process: CloudProcess) -> None:
    async with (
        edge(cloud_process) as client,
        openai.AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0, timeout=280) as typed,
    ):
        openai_client = cast(Any, typed)  # its types do not have our fields
        kept = await openai_client.chat.completions.create(
            model="gkt",
            messages=QUESTION,
            max_tokens=WHOLE,
            logprobs=True,
            top_logprobs=2,
            extra_body={"gkt": {"max_guidance_tokens": 8}},
        )
        assert 5 <= kept.gkt["teacher"]["completion_tokens"] <= 8
        logprobs = kept.choices[0].logprobs.content
        assert len(logprobs) == WHOLE
        assert all(entry.logprob <= 0 for entry in logprobs)
        stream = await openai_client.chat.completions.create(
            model="gkt",
            messages=QUESTION,
            max_tokens=WHOLE,
            stream=True,
            stream_options={"include_usage": True},
        )
        parts = [part async for part in stream]
        assert parts[-1].usage
        assert parts[-1].usage.completion_tokens <= WHOLE
        two = await openai_client.chat.completions.create(
            model="gkt",
            messages=QUESTION,
            max_tokens=WHOLE,
            n=2,
            temperature=1.0,
            seed=3,
        )
        first, second = (choice.message.content or "" for choice in two.choices)
        assert first[:20] == second[:20], "the guidance is the same for both"
        assert first != second


async def test_the_teacher_may_write_it_all(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process) as client:
        answer = await chat(client, model="gkt-teacher")
    assert [s["source"] for s in answer["gkt"]["segments"][0]] == ["teacher"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == WHOLE


async def test_stop_strings_across_the_seam(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process) as client:
        plain = await chat(client)
        text = plain["choices"][0]["message"]["content"]
        seam = plain["gkt"]["segments"][0][0]["chars"]
        stop = text[seam - 4 : seam + 4]
        answer = await chat(client, stop=[stop])
        stream = await chunks(client, stop=stop)
    assert answer["choices"][0]["message"]["content"] == text_of(stream) == text[: text.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


def engine_tokens(cloud: CloudProcess) -> float:
    found = ENGINE_TOKENS.search(httpx.get(f"{cloud.url}/metrics").text)
    assert found, "vLLM's own counter is in the cloud's metrics"
    return float(found.group(1))


async def test_a_client_that_goes_away_stops_the_teachers_engine(cloud_process: CloudProcess) -> None:
    before = engine_tokens(cloud_process)
    async with edge(cloud_process) as client:
        body = {"messages": QUESTION, "stream": True, "model": "gkt-teacher", "max_tokens": 900}
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if '"content"' in line and '"content":""' not in line:
                    break
        # A second request of known length: when it is through, an engine that went on would have counted more.
        answer = await chat(client)
    written = answer["gkt"]["teacher"]["completion_tokens"]
    assert engine_tokens(cloud_process) - before - written < 100


@pytest.mark.engine
async def test_the_student_prefills_while_the_cloud_works() -> None:
    """The prompt is in the student's cache before any guidance arrives."""
    student = LlamaStudent(SMOLLM, ensure_gguf(SMOLLM), EdgeSettings(context_tokens=512))
    prompt = student.tokenize("The sky is blue because " * 10)
    sequence = student.open(prompt)
    counted = "llamacpp:prompt_tokens_total"
    while student.registry.get_sample_value(counted) != len(prompt) - 1:
        await asyncio.sleep(0.005)
    sequence.close()
    await student.close()
