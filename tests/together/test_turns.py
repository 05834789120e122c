"""Student and teacher in turns on real models: SmolLM2 on both sides, and with Qwen as a student of another vocabulary."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import CloudProcess
from tests.together.test_pair import QWEN, SMOLLM, chat, edge

pytestmark = pytest.mark.timeout(400)


def strips(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the segments of an answer with their writers."""
    text, at, parts = answer["choices"][0]["message"]["content"], 0, []
    for segment in answer["gkt"]["segments"][0]:
        parts.append((segment["source"], text[at : at + segment["chars"]]))
        at += segment["chars"]
    assert at == len(text)
    return parts


@pytest.mark.parametrize("model", [SMOLLM, QWEN])
async def test_a_strict_teacher_rewrites_and_one_that_doubts_nothing_costs_no_words(
    cloud_process: CloudProcess, model: str
) -> None:
    async with edge(cloud_process, model=model, max_guidance_tokens=200) as client:
        alone = await chat(client, gkt={"mode": "off"})
        trusting = await chat(client, gkt={"mode": "review", "acceptance_threshold": 0.0})
        strict = await chat(client, gkt={"mode": "review", "acceptance_threshold": 0.9, "handback_after": 2})
    # Text goes on from other batches than alone, so near ties may fall the other way; but no word is the teacher's.
    assert [source for source, _ in strips(trusting)] == ["student"]
    assert trusting["gkt"]["teacher"]["completion_tokens"] == 0
    assert trusting["choices"][0]["message"]["content"][:20] == alone["choices"][0]["message"]["content"][:20]
    sources = [source for source, _ in strips(strict)]
    assert "teacher" in sources
    assert sources == [source for at, source in enumerate(sources) if not at or sources[at - 1] != source]
    teacher = strict["gkt"]["teacher"]
    assert teacher["calls"] >= 1
    assert teacher["prompt_tokens"] > teacher["cached_tokens"] > 0
    assert teacher["bytes_sent"] and teacher["bytes_received"]
    assert strict["gkt"]["fallback"] is None
    assert strict["usage"]["completion_tokens"] <= 48


@pytest.mark.parametrize("model", [SMOLLM, QWEN])
async def test_a_teacher_that_lets_only_its_own_choices_pass_has_its_own_answer_written_a_word_a_turn(
    cloud_process: CloudProcess, model: str
) -> None:
    async with edge(cloud_process, model=model, max_guidance_tokens=200) as client:
        own = await chat(client, gkt={"mode": "teacher"})
        strict = await chat(client, gkt={"mode": "review", "acceptance_threshold": 0.5, "max_correction_tokens": 1})
    # The student's text is read with other tokens at its seams, so near ties may fall the other way in the end.
    text, same = (answer["choices"][0]["message"]["content"] for answer in (strict, own))
    assert text[:40] == same[:40]
    teacher, segments = strict["gkt"]["teacher"], strict["gkt"]["segments"][0]
    assert 0 < teacher["completion_tokens"] < own["gkt"]["teacher"]["completion_tokens"]
    assert teacher["completion_tokens"] == sum(one["tokens"] for one in segments if one["source"] == "teacher")


async def test_on_demand_a_student_that_is_never_sure_has_every_line_written(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process, max_guidance_tokens=200) as client:
        answer = await chat(client, gkt={"mode": "on_demand", "confidence_threshold": 1.0, "handback_after": 0})
        confidence_threshold = await chat(client, gkt={"mode": "on_demand", "confidence_threshold": 0.0})
    assert {source for source, _ in strips(answer)} == {"teacher"}
    assert {source for source, _ in strips(confidence_threshold)} == {"student"}
    assert confidence_threshold["gkt"]["teacher"] is None


async def test_adaptive_guidance_ends_at_its_budget_at_the_latest(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process, max_guidance_tokens=30) as client:
        answer = await chat(client, gkt={"mode": "adaptive", "handback_after": 2, "scores": True})
    assert [source for source, _ in strips(answer)] == ["teacher", "student"]
    assert 2 <= answer["gkt"]["teacher"]["completion_tokens"] <= 30
    assert len(answer["gkt"]["scores"]) >= 2
