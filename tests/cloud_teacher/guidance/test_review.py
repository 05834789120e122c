"""Reviews with a scripted teacher: the accepted characters, the continuation, and the usage."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_teacher.auth.caller import Caller
from shared.protocol.guidance import (
    Done,
    Event,
    FinishReason,
    Guidance,
    GuidanceRequest,
    Message,
    ReviewRequest,
    Verdict,
)
from tests.cloud_teacher.fakes import ScriptedTeacher, guidance_service

MESSAGES = [Message(role="user", content="How many?")]


async def events_of(teacher: ScriptedTeacher, request: GuidanceRequest) -> list[Event]:
    service = guidance_service(teacher)
    return [event async for event in service.answer(request, request_id="r", caller=Caller("c"))]


def review(answer: str, step: str, **more: Any) -> ReviewRequest:
    usual = {"messages": MESSAGES, "max_guidance_tokens": 20, "stop_at_line_end": True, "acceptance_threshold": 0.1}
    return ReviewRequest(**{**usual, "answer": answer, "draft": step, **more})


async def test_a_step_that_is_accepted_costs_its_prefill_alone() -> None:
    teacher = ScriptedTeacher("never")
    _, verdict, done = await events_of(teacher, review("2 + 2", " = 4\n"))
    assert isinstance(verdict, Verdict)
    assert (verdict.accepted, verdict.accepted_chars, verdict.scored_tokens) == (True, 5, 5)
    assert teacher.scored == [" = 4\n"]
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.HANDBACK
    assert (done.usage.completion_tokens, done.usage.cached_tokens) == (0, 3)
    assert done.usage == verdict.usage


async def test_the_teacher_goes_on_from_its_first_doubt_up_to_the_lines_end() -> None:
    teacher = ScriptedTeacher("4", "\n", "more")
    teacher.doubted = "5"
    _, verdict, *guidance, done = await events_of(teacher, review("2 + 2", " = 5, surely\n"))
    assert isinstance(verdict, Verdict)
    assert (verdict.accepted, verdict.accepted_chars) == (False, 3)
    assert [event.text for event in guidance if isinstance(event, Guidance)] == ["4", "\n"]
    assert teacher.prompts[0].endswith("2 + 2 = ")
    assert isinstance(done, Done)
    assert (done.finish_reason, done.usage.completion_tokens) == (FinishReason.HANDBACK, 2)
    first = guidance[0]
    assert isinstance(first, Guidance)
    assert first.usage
    assert first.usage.prompt_tokens == done.usage.prompt_tokens, "of both: what was read, and what it goes on from"
    assert done.usage.prompt_tokens == verdict.usage.prompt_tokens + len(teacher.prompts[0])


async def test_the_first_word_is_told_by_the_reading_itself() -> None:
    teacher = ScriptedTeacher("never")
    teacher.doubted, teacher.choices = "5", " = 4"
    _, verdict, word, done = await events_of(teacher, review("2 + 2", " = 5, surely\n", max_guidance_tokens=1))
    assert isinstance(verdict, Verdict)
    assert isinstance(word, Guidance)
    assert (verdict.accepted_chars, word.text) == (3, "4")
    assert teacher.prompts == [], "nothing is written: it was read"
    assert isinstance(done, Done)
    assert (done.finish_reason, done.usage.completion_tokens) == (FinishReason.BUDGET, 1)
    assert done.usage.prompt_tokens == verdict.usage.prompt_tokens


async def test_behind_its_first_word_the_teacher_goes_on() -> None:
    teacher = ScriptedTeacher(" eggs", "\n", "more")
    teacher.doubted, teacher.choices = "5", " = 4"
    _, _, *guidance, done = await events_of(teacher, review("2 + 2", " = 5\n", max_guidance_tokens=3))
    assert [event.text for event in guidance if isinstance(event, Guidance)] == ["4", " eggs", "\n"]
    assert teacher.prompts[0].endswith("2 + 2 = 4")
    assert teacher.params[0].max_tokens == 2
    assert isinstance(done, Done)
    assert (done.finish_reason, done.usage.completion_tokens) == (FinishReason.HANDBACK, 3)


@pytest.mark.parametrize(("choice", "reason"), [("\n", FinishReason.HANDBACK), ("\0", FinishReason.STOP)])
async def test_a_first_word_may_end_the_line_or_the_answer(choice: str, reason: FinishReason) -> None:
    teacher = ScriptedTeacher("never")
    teacher.doubted, teacher.choices = "5", f" = {choice}"
    *_, done = await events_of(teacher, review("2 + 2", " = 5\n"))
    assert isinstance(done, Done)
    assert done.finish_reason is reason
    assert done.usage.completion_tokens == (reason is FinishReason.HANDBACK)
    assert teacher.prompts == []


@pytest.mark.parametrize(
    ("choice", "more"),
    [
        ("?", {}),
        ("\ufffd", {}),
        ("4", {"temperature": 0.5}),
        ("4", {"presence_penalty": 1.0}),
        ("4", {"logprobs": True}),
    ],
)
async def test_where_the_reading_does_not_tell_it_the_teacher_is_asked(choice: str, more: dict[str, Any]) -> None:
    teacher = ScriptedTeacher("4")
    teacher.doubted, teacher.choices = "5", f" = {choice}"
    _, _, word, done = await events_of(teacher, review("2 + 2", " = 5\n", max_guidance_tokens=1, **more))
    assert isinstance(word, Guidance)
    assert word.text == "4"
    assert len(teacher.prompts) == 1
    assert isinstance(done, Done)
    assert done.usage.completion_tokens == 1


@pytest.mark.parametrize("doubted", ["", "\0"])
async def test_the_end_of_an_answer_is_read_as_well(doubted: str) -> None:
    teacher = ScriptedTeacher(" so", " on")
    teacher.doubted = doubted
    _, verdict, *_, done = await events_of(teacher, review("", "4", draft_is_final=True))
    assert isinstance(verdict, Verdict)
    assert (verdict.accepted, verdict.accepted_chars) == (not doubted, 1)
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.STOP
    assert done.usage.completion_tokens == (2 if doubted else 0)


async def test_what_fills_the_context_is_let_through() -> None:
    teacher = ScriptedTeacher("x", max_model_len=60)
    teacher.doubted = "y"
    _, verdict, done = await events_of(teacher, review("", "y" * 60))
    assert isinstance(verdict, Verdict)
    assert verdict.accepted
    assert isinstance(done, Done)


async def test_guidance_goes_on_from_an_answer() -> None:
    teacher = ScriptedTeacher(" four")
    request = GuidanceRequest(messages=MESSAGES, max_guidance_tokens=20, answer="2 + 2 is")
    await events_of(teacher, request)
    assert teacher.prompts[0].endswith("2 + 2 is")
