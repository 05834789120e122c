"""Guidance in whole words ends at a word's end, with a scripted teacher."""

from __future__ import annotations

import pytest

from cloud_teacher.auth.caller import Caller
from shared.protocol.guidance import Done, FinishReason, Guidance, GuidanceRequest, Message
from tests.cloud_teacher.fakes import ScriptedTeacher, guidance_service


@pytest.mark.parametrize(
    ("words", "budget", "written"),
    [
        (["a", " b", " c", " d", " e", " f", " g"], 6, ["a", " b", " c"]),
        (["a", " 1", "2", "3", "4", "5", "6"], 6, ["a", " 1", "2", "3", "4", "5"]),
        (["a", " b", " c", "c", " d", " e", " f"], 7, ["a", " b", " c", "c", " d"]),
        (["a", " b"], 6, ["a", " b"]),
    ],
)
async def test_whole_words_end_where_a_word_begins_that_would_hardly_fit(
    words: list[str], budget: int, written: list[str]
) -> None:
    teacher = ScriptedTeacher(*words)
    service = guidance_service(teacher)
    request = GuidanceRequest(
        messages=[Message(role="user", content="?")], max_guidance_tokens=budget, stop_at_word_boundary=True
    )
    events = [event async for event in service.answer(request, request_id="r", caller=Caller("c"))]
    assert [event.text for event in events if isinstance(event, Guidance)] == written
    done = events[-1]
    assert isinstance(done, Done)
    assert done.finish_reason is (FinishReason.STOP if len(words) < budget else FinishReason.BUDGET)
    assert done.usage.completion_tokens == len(written)
    await teacher.stopped.get()
