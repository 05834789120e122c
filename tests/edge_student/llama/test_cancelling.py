"""Cancelling on a real model (SmolLM2-135M) works at any moment, during a long prefill too, and leaves nothing behind.

`GKT_TEST_CANCELS` sets how many requests the leak test makes. The default takes a quarter of a minute on two free cores.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from edge_student.llama.student import LlamaStudent
from edge_student.settings import EdgeSettings
from edge_student.student import StudentSampling
from shared.model_hub.local_models import ensure_gguf

pytestmark = pytest.mark.engine

MODEL = "smollm2-135m-instruct"
REQUESTS = int(os.environ.get("GKT_TEST_CANCELS", "1000"))
LONG_TOKENS = 1500
LEAK_BYTES = 8 * 2**20
"""Memory that the second half of the requests may add: the allocator's own variation, for any number of requests."""


@pytest.fixture
async def student() -> AsyncGenerator[LlamaStudent]:
    settings = EdgeSettings(
        context_tokens=2048,
        kv_cache_tokens=4096,
        max_sequences=8,
        prefix_cache_sequences=0,
        max_queue=64,
        batch_tokens=128,
        prefill_chunk_tokens=32,
        threads=1,  # threads that wait for each other would make it a test of how busy the machine is
    )
    student = LlamaStudent(MODEL, ensure_gguf(MODEL), settings)
    yield student
    await student.close()


def figure(student: LlamaStudent, name: str) -> float:
    value = student.registry.get_sample_value(name)
    assert value is not None
    return value


async def idle(student: LlamaStudent) -> None:
    """Wait until every sequence has left and a step has followed, so that the figures are final."""
    while figure(student, "gkt_edge_sequences"):
        await asyncio.sleep(0.005)
    while figure(student, "llamacpp:requests_processing") or figure(student, "llamacpp:kv_cache_tokens"):
        async with aclosing(student.open(student.tokenize("x")).generate(StudentSampling(max_tokens=1))) as words:
            assert [word.end async for word in words] == ["length"]
        await asyncio.sleep(0.005)
    assert figure(student, "llamacpp:requests_deferred") == 0


async def one(student: LlamaStudent, draw: random.Random) -> None:
    """Make a random request: with guidance, scores or neither, and cancelled at any moment or not at all."""
    prompt = student.tokenize(f"{draw.randrange(10**6)}" + " long" * (300 if draw.random() < 0.03 else 1))
    sampling = StudentSampling(
        max_tokens=draw.randint(1, 4),
        temperature=draw.choice([0.0, 1.0]),
        seed=draw.randrange(1000),
        top_logprobs=draw.choice([None, 2]),
    )

    async def answer() -> None:
        sequence = student.open(prompt, deferred=draw.random() < 0.1, scores_of=draw.choice([None, None, 1]))
        try:
            if draw.random() < 0.3:
                sequence.extend("Guidance, word by word, ")
                await asyncio.sleep(0)
            if draw.random() < 0.1:
                return  # the client disconnects before the handover
            async with aclosing(sequence.generate(sampling)) as words:
                async for _ in words:
                    pass
        finally:
            sequence.close()

    task = asyncio.create_task(answer())
    if draw.random() < 0.9:
        await asyncio.sleep(draw.choice([0, 0, draw.uniform(0, 0.02), draw.uniform(0, 0.2)]))
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def many(student: LlamaStudent, count: int, draw: random.Random) -> None:
    places = asyncio.Semaphore(16)

    async def in_turn() -> None:
        async with places:
            await one(student, draw)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(in_turn())
    await idle(student)


async def full(student: LlamaStudent) -> None:
    """Use all cells and rows of logits, because reserved memory becomes resident when it is first used."""
    prompt = (student.tokenize("All rivers run to the sea. ") * 150)[:150]
    answers = [student.open(prompt, scores_of=1).generate(StudentSampling(max_tokens=2)) for _ in range(8)]
    for answer in answers:
        assert [word.end async for word in answer] == [None, "length"]


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(3600)
async def test_after_many_cancels_all_is_as_it_was(student: LlamaStudent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gkt.llama")  # pytest would keep llama.cpp's log of each interrupted batch
    await full(student)
    draw = random.Random(7)
    await many(student, REQUESTS // 2, draw)
    before = resident_bytes()
    await many(student, REQUESTS // 2, draw)
    assert resident_bytes() - before < LEAK_BYTES
    assert figure(student, "llamacpp:kv_cache_tokens") == 0
    # Every slot is free again: as many sequences start at once, and none of them waits.
    sequences = [student.open(student.tokenize("The river")) for _ in range(8)]
    answers = [sequence.generate(StudentSampling(max_tokens=200)) for sequence in sequences]
    for answer in answers:
        assert not (await anext(answer)).end
    assert figure(student, "llamacpp:requests_deferred") == 0
    assert figure(student, "llamacpp:requests_processing") == 8
    for answer in answers:
        await answer.aclose()
    await idle(student)


async def test_a_long_prefill_is_interrupted_in_the_middle(student: LlamaStudent) -> None:
    prompt = (student.tokenize("All rivers run to the sea. ") * LONG_TOKENS)[:LONG_TOKENS]
    sequence = student.open(prompt)
    while not figure(student, "llamacpp:n_decode_total"):
        await asyncio.sleep(0.001)
    sequence.close()
    await idle(student)
    assert figure(student, "llamacpp:prompt_tokens_total") < LONG_TOKENS


async def test_those_who_come_and_go_do_not_hold_up_a_prefill(student: LlamaStudent) -> None:
    prompt = (student.tokenize("All rivers run to the sea. ") * 600)[:600]
    brief = student.tokenize("One two three")

    async def first_word() -> None:
        async with aclosing(student.open(prompt).generate(StudentSampling(max_tokens=1))) as words:
            await anext(words)

    reading = asyncio.create_task(first_word())
    visits = 0
    while not reading.done():
        sequence = student.open(brief)
        visits += 1
        await asyncio.sleep(0.01)
        sequence.close()
    await reading
    assert visits > 3
    assert figure(student, "llamacpp:prompt_tokens_total") <= len(prompt) + visits * len(brief), (
        "no token is computed twice"
    )
