"""The student engine on a real model (SmolLM2-135M): exact at the seam, alone or in a batch, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import llama_cpp
import pytest

from edge_student.llama.context import model_params
from edge_student.llama.handover import stable_length
from edge_student.llama.student import LlamaStudent
from edge_student.settings import EdgeSettings
from edge_student.student import StudentSampling, StudentSequence, TokenOutput
from shared.errors import EngineFailed, InvalidRequest, Overloaded, PromptTooLong
from shared.protocol.guidance import Message

pytestmark = pytest.mark.engine

MODEL = "smollm2-135m-instruct"
QUESTION = [Message(role="user", content="Write three sentences about rivers.")]
GREEDY = StudentSampling(max_tokens=24)


@pytest.fixture
async def student(gguf: Path) -> AsyncGenerator[LlamaStudent]:
    settings = EdgeSettings(
        context_tokens=512,
        kv_cache_tokens=1024,
        max_sequences=4,
        prefix_cache_sequences=0,
        max_queue=4,
        batch_tokens=64,
        prefill_chunk_tokens=16,
    )
    student = LlamaStudent(MODEL, gguf, settings)
    yield student
    await student.close()


def alone(reference: llama_cpp.Llama, prompt: list[int], guidance: str, count: int) -> bytes:
    """Compute prompt, guidance and greedy decoding in one process, one token at a time."""
    reference.reset()
    reference.eval(prompt + reference.tokenize(guidance.encode(), add_bos=False, special=False))
    text = b""
    for _ in range(count):
        token = reference.sample(temp=0.0)
        if llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(reference.model), token):
            break
        text += reference.detokenize([token])
        reference.eval([token])
    return text


def assert_greedy(reference: llama_cpp.Llama, prompt: list[int], words: list[TokenOutput]) -> None:
    """Each word is the most probable one behind those before it, up to the rounding that batches of other shapes bring.

    What another sequence's cells, a lost token or a wrong position do is far beyond that.
    """
    ids = [token for word in words for token in reference.tokenize(word.token, add_bos=False)]
    reference.reset()
    reference.eval(prompt + ids)
    for at, token in enumerate(ids, start=len(prompt) - 1):
        assert reference.scores[at][token] > reference.scores[at].max() - 1.0


async def read(sequence: StudentSequence, sampling: StudentSampling = GREEDY) -> list[TokenOutput]:
    async with aclosing(sequence.generate(sampling)) as words:
        return [word async for word in words]


async def text_of(sequence: StudentSequence, sampling: StudentSampling = GREEDY) -> str:
    return "".join(word.text for word in await read(sequence, sampling))


async def bytes_of(sequence: StudentSequence) -> bytes:
    """Return an answer as bytes, because a token limit may cut a character in the middle."""
    return b"".join(word.token for word in await read(sequence))


def cells(student: LlamaStudent) -> float | None:
    return student.registry.get_sample_value("llamacpp:kv_cache_tokens")


async def all_returned(student: LlamaStudent) -> None:
    while student.registry.get_sample_value("gkt_edge_sequences") or cells(student):
        # The gauge of cells moves with the next step: give it one.
        await read(student.open(student.tokenize("x")), StudentSampling(max_tokens=1))
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("guidance", ["", "Rivers are", "Rivers, like roads, carry 18", "L'été — 河川は 🌊 "])
async def test_the_seam_is_byte_exact(student: LlamaStudent, reference: llama_cpp.Llama, guidance: str) -> None:
    prompt = student.encode(QUESTION)
    sequence = student.open(prompt)
    for character in guidance:
        sequence.extend(character)
        await asyncio.sleep(0)
    assert await bytes_of(sequence) == alone(reference, prompt, guidance, 24)


async def test_guidance_that_comes_late_changes_nothing(student: LlamaStudent, reference: llama_cpp.Llama) -> None:
    prompt = student.encode(QUESTION)
    sequence = student.open(prompt)
    computed = "llamacpp:prompt_tokens_total"
    while (student.registry.get_sample_value(computed) or 0) < len(prompt) - 1:
        await asyncio.sleep(0.001)  # the prompt is prefilled while the teacher still thinks
    for piece in ("Rivers", " are the", " veins of", " the"):
        sequence.extend(piece)
        await asyncio.sleep(0.02)
    assert await bytes_of(sequence) == alone(reference, prompt, "Rivers are the veins of the", 24)


async def test_a_held_prompt_waits_for_the_first_words(student: LlamaStudent, reference: llama_cpp.Llama) -> None:
    prompt = student.encode(QUESTION)
    deferred = student.open(prompt, deferred=True)
    other = await text_of(student.open(prompt))
    computed = "llamacpp:prompt_tokens_total"
    assert student.registry.get_sample_value(computed) == len(prompt), "the other one's only"
    assert await text_of(deferred) == other
    deferred = student.open(prompt, deferred=True)
    deferred.extend("Rivers")
    while (student.registry.get_sample_value(computed) or 0) < 3 * len(prompt) - 1:
        await asyncio.sleep(0.001)
    assert await bytes_of(deferred) == alone(reference, prompt, "Rivers", 24)


@pytest.mark.parametrize(
    "prefilled_ahead", ["", " veins of the", " vein", " roads that carry all the goods of the earth"]
)
async def test_what_was_foreseen_leaves_no_trace(
    student: LlamaStudent, reference: llama_cpp.Llama, prefilled_ahead: str
) -> None:
    prompt = student.encode(QUESTION)
    sequence = student.open(prompt)
    sequence.extend("Rivers are the")
    sequence.prefill_ahead(prefilled_ahead)
    ahead = (
        len(prompt) + len(student.continuation("Rivers are the" + prefilled_ahead)) - 1
        if prefilled_ahead
        else len(prompt) - 1
    )
    while (student.registry.get_sample_value("llamacpp:prompt_tokens_total") or 0) < ahead:
        await asyncio.sleep(0.001)  # it is computed, right or wrong
    sequence.extend(" veins")
    assert await bytes_of(sequence) == alone(reference, prompt, "Rivers are the veins", 24)


async def test_many_at_once_say_what_each_would_say(student: LlamaStudent, reference: llama_cpp.Llama) -> None:
    questions = [f"Say something about the number {n}." for n in range(6)]
    prompts = [student.encode([Message(role="user", content=q)]) for q in questions]
    answers = await asyncio.gather(*[read(student.open(prompt)) for prompt in prompts])
    for prompt, words in zip(prompts, answers, strict=True):
        assert_greedy(reference, prompt, words)


async def test_a_cache_too_small_for_all_at_once_still_serves_all(
    gguf: Path, reference: llama_cpp.Llama, caplog: pytest.LogCaptureFixture
) -> None:
    settings = EdgeSettings(
        context_tokens=256, kv_cache_tokens=256, max_sequences=4, prefix_cache_sequences=0, batch_tokens=64
    )
    student = LlamaStudent(MODEL, gguf, settings)
    prompt = student.encode(QUESTION)
    answers = await asyncio.gather(*[read(student.open(prompt), StudentSampling(max_tokens=60)) for _ in range(4)])
    for words in answers:
        assert_greedy(reference, prompt, words)
    assert student.registry.get_sample_value("gkt_edge_preemptions_total")
    warnings = [record.getMessage() for record in caplog.records if "GKT_EDGE_KV_CACHE_TOKENS" in record.getMessage()]
    assert len(warnings) == 1
    await student.close()


async def test_ends_by_itself_by_the_limit_and_at_the_contexts_end(student: LlamaStudent) -> None:
    hello = student.encode([Message(role="user", content="Say hi.")])
    words = await read(student.open(hello), StudentSampling(max_tokens=400))
    assert words[-1].end == "stop"
    assert words[-1].token == b""
    words = await read(student.open(hello), StudentSampling(max_tokens=3))
    assert (len(words), words[-1].end) == (3, "length")
    long = student.tokenize(" word" * 505)[:505]
    words = await read(student.open(long), StudentSampling(max_tokens=400))
    assert words[-1].end in {"length", "stop"}
    assert len(words) <= 512 - 505 + 1


async def test_log_probabilities(student: LlamaStudent) -> None:
    words = await read(student.open(student.encode(QUESTION)), StudentSampling(max_tokens=4, top_logprobs=3))
    for word in words:
        assert word.logprob is not None
        assert word.logprob == pytest.approx(word.alternatives[0].logprob), "greedy takes the most probable"
        assert [a.logprob for a in word.alternatives] == sorted((a.logprob for a in word.alternatives), reverse=True)
        assert len(word.alternatives) == 3


async def test_the_same_seed_draws_the_same_words(student: LlamaStudent) -> None:
    prompt = student.encode(QUESTION)
    draw = [
        await text_of(student.open(prompt), StudentSampling(max_tokens=16, temperature=1.2, top_p=0.9, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert draw[0] == draw[1]
    assert draw[0] != draw[2]


async def test_cancelled_sequences_give_everything_back(student: LlamaStudent) -> None:
    prompt = student.encode([Message(role="user", content="river " * 300)])
    for _ in range(3):
        prefilling = student.open(prompt)
        async with aclosing(student.open(student.encode(QUESTION)).generate(StudentSampling(max_tokens=200))) as words:
            await anext(words)
            prefilling.close()
            await anext(words)
        prefilling.close()
    await all_returned(student)


async def test_a_full_queue_is_an_error_and_its_end_is_not(student: LlamaStudent) -> None:
    prompt = student.encode(QUESTION)
    open_sequences = [student.open(prompt) for _ in range(8)]
    with pytest.raises(Overloaded):
        student.open(prompt)
    for sequence in open_sequences:
        sequence.close()
    while True:
        try:
            student.open(prompt).close()
            break
        except Overloaded:
            await asyncio.sleep(0.01)


async def test_prompts_that_cannot_be_served(student: LlamaStudent) -> None:
    with pytest.raises(PromptTooLong, match=r"600 tokens.*512"):
        student.open(list(range(100, 700)))
    with pytest.raises(InvalidRequest):
        student.open([])
    with pytest.raises(InvalidRequest):
        student.check_tokens([10**9])


async def test_closing_fails_what_is_under_way(gguf: Path) -> None:
    student = LlamaStudent(MODEL, gguf, EdgeSettings(context_tokens=256))
    words = student.open(student.encode(QUESTION)).generate(StudentSampling(max_tokens=200))
    await anext(words)
    await student.close()
    with pytest.raises(EngineFailed):
        async for _ in words:
            pass
    with pytest.raises(EngineFailed):
        student.open([1])


def test_weights_stay_off_amx(caplog: pytest.LogCaptureFixture) -> None:
    assert model_params(b"CPU : AVX512 = 1 | REPACK = 1 | ").use_extra_bufts
    assert not caplog.records
    assert not model_params(b"CPU : AVX512 = 1 | AMX_INT8 = 1 | REPACK = 1 | ").use_extra_bufts
    assert "CFLAGS=-U__AMX_INT8__" in caplog.text


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(EngineFailed):
        LlamaStudent("bad", bad, EdgeSettings())


@pytest.mark.parametrize(
    ("text", "stable"),
    [("", 0), ("word", 0), (" word", 0), ("a word", 1), ("a word ", 6), ("a  b", 1), ("a.\n\n b", 0), ("  ", 0)],
)
def test_stable_length(text: str, stable: int) -> None:
    assert stable_length(text) == stable
