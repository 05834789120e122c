"""Guidance in any pieces, prefilled ahead rightly or wrongly, becomes the tokens of its whole text, on two tokenizers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import llama_cpp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_student.llama.engine import Engine
from edge_student.llama.engine_sequence import EngineSequence
from edge_student.llama.handover import LlamaSequence
from edge_student.llama.student import LlamaStudent
from edge_student.llama.vocab import Vocab
from edge_student.student import StudentSampling, TokenOutput
from shared.model_hub.local_models import ensure_gguf

pytestmark = pytest.mark.engine

PROMPT = [1, 2, 3]


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def vocab(request: pytest.FixtureRequest) -> Iterator[Vocab]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(ensure_gguf(request.param)).encode(), params)
    yield Vocab(llama_cpp.llama_model_get_vocab(model))
    llama_cpp.llama_model_free(model)


class RecordingEngine:
    """Runs the engine's commands at once, and ends at the handover."""

    def submit(self, sequence: EngineSequence) -> None:
        pass

    def remove(self, sequence: EngineSequence) -> None:
        pass

    def rewrite(self, sequence: EngineSequence, keep: int, tokens: list[int]) -> None:
        assert sequence.tokens[: len(PROMPT)] == PROMPT
        assert len(PROMPT) <= keep <= len(sequence.tokens)
        sequence.tokens[keep:] = tokens

    def generate(self, sequence: EngineSequence, keep: int, tokens: list[int], sampler: None) -> None:
        self.rewrite(sequence, keep, tokens)
        sequence.outcomes.put_nowait(TokenOutput("", end="length"))


class Tokenizer:
    """The part of a student that its sequences use."""

    context_tokens = 10_000

    def __init__(self, vocab: Vocab) -> None:
        self.continuation = vocab.tokenize_continuation

    def sampler(self, sampling: StudentSampling, prompt: list[int], guidance: list[int]) -> None:
        assert prompt == PROMPT


def tokens_at_the_hand_over(vocab: Vocab, pieces: list[tuple[str, str]], *, deferred: bool) -> list[int]:
    """Return the engine's tokens behind the prompt, after pieces of text that are each followed by text prefilled ahead."""

    async def feed() -> list[int]:
        state = EngineSequence(list(PROMPT), deferred=deferred, loop=asyncio.get_running_loop())
        student, engine = cast(Any, Tokenizer(vocab)), cast(Any, RecordingEngine())
        sequence = LlamaSequence(cast(LlamaStudent, student), cast(Engine, engine), state, len(PROMPT), "")
        for text, prefilled_ahead in pieces:
            # As the answer service does: deferred text is prefilled ahead before any of it is released.
            if text:
                sequence.extend(text)
            if prefilled_ahead:
                sequence.prefill_ahead(prefilled_ahead)
        async for _ in sequence.generate(StudentSampling(max_tokens=1)):
            pass
        return state.tokens[len(PROMPT) :]

    with asyncio.Runner() as runner:  # inspect_ai puts its own `asyncio.run` in place, which leaves its loop open
        return runner.run(feed())


def test_what_was_foreseen_before_the_first_words_is_not_lost(vocab: Vocab) -> None:
    pieces = [("", "18"), ("18", " eggs"), (" eggs", "")]
    assert tokens_at_the_hand_over(vocab, pieces, deferred=True) == vocab.tokenize_continuation("18 eggs")


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(
            st.text(max_size=8) | st.sampled_from([" the", "ing", " 1", "8", "\n\n", " ", "été", "🌊"]),
            st.text(max_size=6),
        ),
        max_size=12,
    ),
    deferred=st.booleans(),
)
def test_any_pieces_end_as_the_tokens_of_the_whole(vocab: Vocab, pieces: list[tuple[str, str]], deferred: bool) -> None:
    whole = vocab.tokenize_continuation("".join(text for text, _ in pieces))
    assert tokens_at_the_hand_over(vocab, pieces, deferred=deferred) == whole
