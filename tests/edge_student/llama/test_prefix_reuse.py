"""Prefixes that were computed before are found, counted, and do not change the text, on a real model (SmolLM2-135M)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from edge_student.llama.student import LlamaStudent
from edge_student.settings import EdgeSettings
from edge_student.student import StudentSampling, StudentSequence, TokenOutput
from shared.protocol.guidance import Message

pytestmark = pytest.mark.engine

MODEL = "smollm2-135m-instruct"
SHORT = StudentSampling(max_tokens=8)
ROUNDING = 0.5
"""Difference that batches of other shapes may make to a logit."""
PREFIX = "The rivers of the north are long and cold. " * 12


@pytest.fixture
async def student(gguf: Path) -> AsyncGenerator[LlamaStudent]:
    settings = EdgeSettings(context_tokens=1024, kv_cache_tokens=2048, max_sequences=4, prefix_cache_sequences=4)
    student = LlamaStudent(MODEL, gguf, settings)
    yield student
    await student.close()


async def read(sequence: StudentSequence, sampling: StudentSampling = SHORT) -> list[TokenOutput]:
    async with aclosing(sequence.generate(sampling)) as words:
        return [word async for word in words]


def computed(student: LlamaStudent) -> float:
    return student.registry.get_sample_value("llamacpp:prompt_tokens_total") or 0


async def test_ten_turns_of_a_conversation_compute_each_turn_once(student: LlamaStudent) -> None:
    messages: list[Message] = []
    last: list[int] = []
    for turn in range(10):
        messages.append(Message(role="user", content=f"Say the number {turn} in words."))
        prompt = student.encode(messages)
        before = computed(student)
        sequence = student.open(prompt)
        words = await read(sequence)
        new = computed(student) - before
        # The last token may have been computed with the handover, as the first step of decoding.
        assert len(prompt) - sequence.cached_tokens - new in {0, 1}
        if turn:
            # The turn itself, the marks around its messages, and the end of the last answer, which may be tokenised
            # differently as text.
            assert new < 40
            assert sequence.cached_tokens > len(last) - 10
        last = prompt
        messages.append(Message(role="assistant", content="".join(word.text for word in words)))


async def test_prompts_that_come_together_compute_their_common_beginning_once(student: LlamaStudent) -> None:
    prompts = [student.tokenize(PREFIX + f"Number {n} is") for n in range(4)]
    common = len(student.tokenize(PREFIX)) - 1
    sequences = [student.open(prompt) for prompt in prompts]
    answers = await asyncio.gather(*map(read, sequences))
    assert [s.cached_tokens >= common - 1 for s in sequences] == [False, True, True, True]
    assert computed(student) <= sum(map(len, prompts)) - 3 * (common - 1)
    assert all(answers)


async def test_what_is_reused_changes_no_word(student: LlamaStudent, reference: llama_cpp.Llama) -> None:
    first = student.tokenize(PREFIX + "They flow to the sea, and then")
    other = student.tokenize(PREFIX + "They flow to the")
    await read(student.open(first))
    sequence = student.open(other)
    words = await read(sequence)
    assert sequence.cached_tokens == len(other) - 1
    ids = [token for word in words for token in reference.tokenize(word.token, add_bos=False)]
    reference.reset()
    reference.eval(other + ids)
    for at, token in enumerate(ids, start=len(other) - 1):
        assert reference.scores[at][token] > reference.scores[at].max() - 1.0


async def test_nothing_is_reused_of_another_salt(student: LlamaStudent) -> None:
    prompt = student.tokenize(PREFIX)
    cached = []
    for salt in ("a", "b", "a"):
        sequence = student.open(prompt, cache_salt=salt)
        await read(sequence)
        cached.append(sequence.cached_tokens)
    assert cached == [0, 0, len(prompt) - 1]


async def test_nothing_is_reused_where_it_is_turned_off(gguf: Path) -> None:
    settings = EdgeSettings(context_tokens=512, max_sequences=2, prefix_cache_sequences=0)
    student = LlamaStudent(MODEL, gguf, settings)
    prompt = student.tokenize(PREFIX)
    for _ in range(2):
        sequence = student.open(prompt)
        await read(sequence)
        assert sequence.cached_tokens == 0
    await student.close()


async def test_a_cache_full_of_what_is_kept_has_room_for_what_comes(gguf: Path) -> None:
    settings = EdgeSettings(context_tokens=256, kv_cache_tokens=256, max_sequences=2, prefix_cache_sequences=8)
    student = LlamaStudent(MODEL, gguf, settings)
    for number in range(12):
        words = await read(student.open(student.tokenize(f"{number} " * 60)))
        assert len(words) >= 1
    assert (student.registry.get_sample_value("llamacpp:kv_cache_tokens") or 0) <= 256
    await student.close()


@pytest.mark.parametrize("prefilled_ahead", ["", " wrong"])
async def test_scores_of_guidance_are_those_of_the_model(
    student: LlamaStudent, reference: llama_cpp.Llama, prefilled_ahead: str
) -> None:
    prompt = student.tokenize("The capital of France")
    sequence = student.open(prompt, scores_of="guidance", top=2)
    for piece in (" is", " the", " city of", " Paris"):
        if prefilled_ahead:
            sequence.prefill_ahead(prefilled_ahead)
        sequence.extend(piece)
        await asyncio.sleep(0.02)
    await read(sequence)
    guidance = student.continuation(" is the city of Paris")
    check(student, reference, prompt + guidance, sequence, start=len(prompt))


async def test_scores_of_a_prompt_are_those_of_the_model(student: LlamaStudent, reference: llama_cpp.Llama) -> None:
    prompt = student.tokenize(PREFIX)
    for _ in range(2):  # the second time it is all in the cache, and computed again all the same
        sequence = student.open(prompt, scores_of=1, top=2)
        await read(sequence, StudentSampling(max_tokens=1))
        check(student, reference, prompt, sequence, start=1)


def check(
    student: LlamaStudent, reference: llama_cpp.Llama, tokens: list[int], sequence: StudentSequence, *, start: int
) -> None:
    reference.reset()
    reference.eval(tokens)
    assert len(sequence.scores) == len(tokens) - start
    for at, score in enumerate(sequence.scores, start=start):
        logits = reference.scores[at - 1].astype(np.float64)
        log_probabilities = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
        assert score.token == student.piece(tokens[at])
        assert score.logprob == pytest.approx(log_probabilities[tokens[at]], abs=ROUNDING)
        entropy = -(np.exp(log_probabilities) * log_probabilities).sum()
        assert score.entropy == pytest.approx(entropy, abs=ROUNDING)
        assert len(score.alternatives) == 2
        assert score.alternatives[0].logprob >= score.alternatives[1].logprob
        if score.rank == 0:
            assert score.alternatives[0].token == score.token
