"""The student's sampling, on a real model (SmolLM2-135M)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from edge_student.llama.student import LlamaStudent
from edge_student.settings import EdgeSettings
from edge_student.student import StudentSampling, StudentSequence, TokenOutput
from shared.model_hub.local_models import ensure_gguf
from shared.protocol.guidance import Message

pytestmark = pytest.mark.engine

MODEL = "smollm2-135m-instruct"
GREEDY = StudentSampling(max_tokens=16)
DRAWN = StudentSampling(max_tokens=16, temperature=1.5, seed=5)


@pytest.fixture
async def student() -> AsyncGenerator[LlamaStudent]:
    student = LlamaStudent(
        MODEL, ensure_gguf(MODEL), EdgeSettings(context_tokens=512, max_sequences=4, batch_tokens=64)
    )
    yield student
    await student.close()


async def words_of(sequence: StudentSequence, sampling: StudentSampling) -> list[TokenOutput]:
    async with aclosing(sequence.generate(sampling)) as words:
        return [word async for word in words if word.token]


async def tokens_of(sequence: StudentSequence, sampling: StudentSampling) -> list[bytes]:
    return [word.token for word in await words_of(sequence, sampling)]


def question(student: LlamaStudent, text: str = "Write three sentences about rivers.") -> list[int]:
    return student.encode([Message(role="user", content=text)])


async def test_a_bias_rules_even_where_the_choice_is_greedy(student: LlamaStudent) -> None:
    prompt = question(student)
    first, *_ = await tokens_of(student.open(prompt), GREEDY)
    (token,) = student.tokenize(first.decode())
    banned = await tokens_of(student.open(prompt), GREEDY.model_copy(update={"logit_bias": ((token, -100.0),)}))
    assert first not in banned
    (forced,) = student.tokenize(" blue")
    always = await tokens_of(
        student.open(prompt), GREEDY.model_copy(update={"max_tokens": 5, "logit_bias": ((forced, 100.0),)})
    )
    assert always == [b" blue"] * 5


@pytest.mark.parametrize(("presence", "frequency"), [(2.0, 0.0), (0.0, 1.5), (-1.0, 0.5)])
async def test_presence_and_frequency_count_the_answer_with_its_guidance_and_not_the_prompt(
    student: LlamaStudent, presence: float, frequency: float
) -> None:
    prompt, guidance = student.tokenize("one two one two one two one two"), " one two one"
    sampling = GREEDY.model_copy(
        update={"presence_penalty": presence, "frequency_penalty": frequency, "top_logprobs": 20}
    )
    words = await words_of(_with(student, prompt, guidance), sampling)
    seen = Counter(student.piece(token) for token in student.tokenize(guidance))
    for word in words:
        worth = {
            a.token: a.logprob - presence * (seen[a.token] > 0) - frequency * seen[a.token] for a in word.alternatives
        }
        assert word.token == max(worth, key=lambda token: worth[token])
        seen[word.token] += 1
    assert any(word.token != word.alternatives[0].token for word in words), "the penalties have changed something"


async def test_a_repetition_penalty_counts_the_prompt_too(student: LlamaStudent) -> None:
    prompt = student.tokenize("one two one two one two one two")
    plain, *_ = await tokens_of(student.open(prompt), GREEDY)
    assert plain in {student.piece(token) for token in prompt}
    varied = await tokens_of(student.open(prompt), GREEDY.model_copy(update={"repetition_penalty": 20.0}))
    assert not {student.piece(token) for token in prompt} & set(varied)
    assert len(set(varied)) == len(varied), "nor does it say anything twice"


@pytest.mark.parametrize(
    "narrow",
    [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}],
    ids=lambda narrow: next(iter(narrow)),
)
async def test_a_draw_from_the_best_token_alone_is_greedy(student: LlamaStudent, narrow: dict[str, float]) -> None:
    prompt = question(student)
    greedy = await tokens_of(student.open(prompt), GREEDY)
    assert await tokens_of(student.open(prompt), DRAWN) != greedy
    assert await tokens_of(student.open(prompt), DRAWN.model_copy(update=narrow)) == greedy


async def test_typical_sampling_leaves_out_what_is_too_improbable_and_too_probable(student: LlamaStudent) -> None:
    prompt = question(student)
    plain = [await tokens_of(student.open(prompt), DRAWN.model_copy(update={"seed": seed})) for seed in range(4)]
    typical = [
        await tokens_of(student.open(prompt), DRAWN.model_copy(update={"seed": seed, "typical_p": 0.2}))
        for seed in range(4)
    ]
    assert plain != typical
    # Of a distribution as flat as this one the typical part is small: the draws begin alike.
    assert len({tokens[0] for tokens in typical}) <= len({tokens[0] for tokens in plain})


@pytest.mark.parametrize(
    "sampling",
    [
        DRAWN,
        DRAWN.model_copy(update={"top_k": 50, "min_p": 0.02, "top_p": 0.95, "typical_p": 0.9}),
        DRAWN.model_copy(
            update={
                "presence_penalty": 0.5,
                "frequency_penalty": 0.5,
                "repetition_penalty": 1.1,
                "logit_bias": ((40, 2.0),),
            }
        ),
    ],
    ids=["plain", "narrow", "penalties"],
)
async def test_the_same_seed_says_the_same(student: LlamaStudent, sampling: StudentSampling) -> None:
    prompt = question(student)
    first, again = [await tokens_of(_with(student, prompt, "Rivers"), sampling) for _ in range(2)]
    other = await tokens_of(_with(student, prompt, "Rivers"), sampling.model_copy(update={"seed": 6}))
    assert first == again
    assert first != other


def _with(student: LlamaStudent, prompt: list[int], guidance: str) -> StudentSequence:
    sequence = student.open(prompt)
    sequence.extend(guidance)
    return sequence
