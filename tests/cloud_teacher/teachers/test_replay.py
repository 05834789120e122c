"""A replay teacher repeats what it recorded, and calls its own teacher only for new prompts."""

from __future__ import annotations

import resource
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    GenerationParams,
    OutputChunk,
    Prompt,
    SchedulingHints,
    TokenEstimate,
)
from cloud_teacher.teachers.replay import ReplayTeacher
from shared.errors import ConfigurationError
from shared.protocol.guidance import Usage
from tests.cloud_teacher.fakes import ScriptedTeacher

PROMPT = Prompt([], "", conversation=[1, 2])


async def written(teacher: ReplayTeacher, params: GenerationParams, *, take: int = 100) -> list[OutputChunk]:
    pieces = []
    async with aclosing(teacher.stream("r", PROMPT, params)) as stream:
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == take:
                break
    return pieces


class Continuing(ScriptedTeacher):
    """Continues behind its own words in the prompt, as a model does."""

    def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        rest = ScriptedTeacher(*self.words[len(prompt.ids) - 2 :])
        self.params.append(params)
        return rest.stream(request_id, prompt, params, hints)


async def test_a_shorter_answer_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    own = Continuing("a", "b", "c", "d")
    teacher = ReplayTeacher(own, tmp_path / "said")
    whole = await written(teacher, GenerationParams(max_tokens=10))
    assert [piece.text for piece in whole] == ["a", "b", "c", "d"]
    short = await written(teacher, GenerationParams(max_tokens=2))
    assert [(piece.text, piece.end) for piece in short] == [("a", None), ("b", "limit")]
    assert await written(teacher, GenerationParams(max_tokens=10)) == whole
    assert len(own.params) == 1
    await teacher.close()

    again = ReplayTeacher(Continuing("never"), tmp_path / "said")
    assert await written(again, GenerationParams(max_tokens=10)) == whole, "the file outlives the process"


async def test_where_the_memory_ends_the_teacher_goes_on(tmp_path: Path) -> None:
    own = Continuing("a", "b", "c", "d")
    teacher = ReplayTeacher(own, tmp_path / "said")
    await written(teacher, GenerationParams(max_tokens=10), take=1)  # whose reader leaves early
    await written(teacher, GenerationParams(max_tokens=2))
    whole = await written(teacher, GenerationParams(max_tokens=10))
    assert [piece.text for piece in whole] == ["a", "b", "c", "d"]
    assert [params.max_tokens for params in own.params] == [10, 1, 8]
    assert whole[-1].end == "stop"
    assert {piece.cached_tokens for piece in whole} == {whole[0].cached_tokens}, "of the prompt, not of its own words"


async def test_what_is_drawn_without_a_seed_is_not_remembered(tmp_path: Path) -> None:
    own = Continuing("a")
    teacher = ReplayTeacher(own, tmp_path / "said")
    for seed in (None, None, 7, 7):
        await written(teacher, GenerationParams(max_tokens=5, temperature=1.0, seed=seed))
    assert [params.seed for params in own.params] == [None, None, 7]


async def test_scores_are_remembered(tmp_path: Path) -> None:
    own = ScriptedTeacher("a")
    teacher = ReplayTeacher(own, tmp_path / "said")
    scores = await teacher.score("r", [97, 98, 99], 1)
    assert await teacher.score("r", [97, 98, 99], 1) == scores
    await teacher.score("r", [97, 98, 99], 2)
    assert own.scored == ["bc", "c"]


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "said").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ConfigurationError, match="said cannot be used"):
        ReplayTeacher(ScriptedTeacher("a"), tmp_path / "said")


async def test_a_disk_that_is_full_fails_no_answer(tmp_path: Path) -> None:
    teacher = ReplayTeacher(ScriptedTeacher("a", "b"), tmp_path / "said")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        pieces = await written(teacher, GenerationParams(max_tokens=10))
        scores = await teacher.score("r", [1, 2, 3], 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [piece.text for piece in pieces] == ["a", "b"]
    assert len(scores.ranks) == 2
    await teacher.close()


async def test_a_chat_api_is_asked_for_all_of_it_again_where_the_memory_ends(tmp_path: Path) -> None:
    prompt = Prompt([], "", estimated_tokens=TokenEstimate(5, 9))
    used = Usage(prompt_tokens=7, completion_tokens=3)

    class Chat(ScriptedTeacher):
        asked: ClassVar[list[Prompt]] = []

        async def stream(
            self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
        ) -> AsyncGenerator[OutputChunk, None]:
            self.asked.append(prompt)
            for word in ["a", "b", "c"][: params.max_tokens]:
                yield OutputChunk(word, (), tokens=1)
            yield OutputChunk("", (), tokens=0, usage=used, end="stop" if params.max_tokens > 3 else "limit")

    async def said(teacher: ReplayTeacher, max_tokens: int) -> list[OutputChunk]:
        async with aclosing(teacher.stream("r", prompt, GenerationParams(max_tokens=max_tokens))) as stream:
            return [piece async for piece in stream]

    teacher = ReplayTeacher(Chat(), tmp_path / "said")
    short, again, whole, once_more = [await said(teacher, count) for count in (2, 2, 10, 10)]
    assert "".join(piece.text for piece in short) == "ab"
    assert [(piece.text, piece.end, piece.usage) for piece in again] == [("a", None, None), ("b", "limit", used)]
    assert "".join(piece.text for piece in whole) == "abc"
    assert [replace(piece, token_ids=()) for piece in once_more] == whole
    assert whole[-1].usage == used
    assert Chat.asked == [prompt, prompt], "from the beginning, and only where it was not known"
    await teacher.close()
