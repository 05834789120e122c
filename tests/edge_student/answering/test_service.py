"""Answers with a scripted student and a scripted cloud, as a user sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge_student.answering.choice import ChoiceEnded, Finished, TextPart
from edge_student.answering.context import AnswerOptions
from edge_student.answering.request import AnswerRequest
from edge_student.answering.service import AnswerService
from edge_student.cloud.client import CloudFailed, Traffic
from edge_student.metrics import EdgeMetrics
from edge_student.policy import Policy
from edge_student.student import StudentSampling
from shared.errors import EngineFailed
from shared.prompting.templates import Template, Templates
from shared.protocol.gkt import FallbackReason, GktReport, Mode, Source
from shared.protocol.guidance import Event, FinishReason, GuidanceRequest, Message, Usage
from shared.protocol.openai_responses import TokenLogprob
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent


@dataclass
class Answer:
    texts: dict[int, str] = field(default_factory=dict)
    sources: list[tuple[Source, str]] = field(default_factory=list)
    ends: dict[int, str] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    report: GktReport | None = None
    usage: Usage | None = None


def ask(
    *,
    mode: Mode = Mode.FIXED,
    budget: int = 40,
    max_tokens: int = 100,
    alone: bool = False,
    scores: bool = False,
    **more: Any,
) -> AnswerRequest:
    messages = [Message(role="user", content="How many eggs?")]
    top = more.pop("top_logprobs", None)
    return AnswerRequest(
        request_id="r-1",
        prompt=[1, 2, 3],
        messages=messages,
        policy=Policy(mode=mode, max_guidance_tokens=budget, scores=scores),
        sampling=StudentSampling(max_tokens=max_tokens, seed=7, top_logprobs=top),
        max_tokens=budget if alone else None,
        **more,
    )


async def answer(
    student: ScriptedStudent,
    cloud: ScriptedCloud,
    request: AnswerRequest,
    **options: Any,
) -> Answer:
    got = Answer()
    answering = AnswerService(student, cloud, EdgeMetrics(), options=AnswerOptions(**options))
    async for part in answering.answer(request):
        match part:
            case TextPart():
                got.texts[part.index] = got.texts.get(part.index, "") + part.text
                got.sources.append((part.source, part.text))
                got.logprobs += part.logprobs
            case ChoiceEnded():
                assert part.index not in got.ends
                got.ends[part.index] = part.reason
            case Finished():
                got.report, got.usage = part.report, part.usage
    assert all(sequence.closed for sequence in student.sequences)
    return got


async def test_the_student_goes_on_from_the_exact_end_of_the_guidance() -> None:
    student = ScriptedStudent(" are", " 18", ".")
    got = await answer(student, ScriptedCloud("There", " real", "ly"), ask(budget=3))
    assert got.texts == {0: "There are 18."}, "the word that the budget may have cut is dropped"
    assert student.sequences[0].guidance == "There"
    assert got.ends == {0: "stop"}
    assert got.report and got.report.teacher and got.usage
    assert [(s.source, s.chars, s.tokens) for s in got.report.segments[0]] == [("teacher", 5, 3), ("student", 8, 3)]
    assert got.report.teacher.prompt_tokens == 9
    assert got.report.teacher.cached_tokens == 3
    assert got.report.template == "answer@1#00000000"
    assert got.report.cost_usd == 0.5
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (3, 6)


async def test_a_teacher_that_finished_the_answer_finishes_the_answer() -> None:
    student = ScriptedStudent("never")
    got = await answer(student, ScriptedCloud("It", " is", " 18", ends=FinishReason.STOP), ask())
    assert got.texts == {0: "It is 18"}
    assert got.ends == {0: "stop"}
    assert student.sequences[0].sampling is None


async def test_an_edge_on_the_clouds_own_machine_holds_its_prefill_back() -> None:
    student = ScriptedStudent("b")
    got = await answer(student, ScriptedCloud("a", " x"), ask(budget=2), prefill_after_teacher=True)
    assert got.texts == {0: "ab"}
    assert student.sequences[0].deferred


async def test_the_student_prepares_for_words_that_are_held_back() -> None:
    student = ScriptedStudent(".")
    got = await answer(student, ScriptedCloud("There", " are", " eight", "een", " eggs"), ask(budget=6))
    assert student.sequences[0].prefilled_ahead == ["There", " are", " eighteen"]
    assert student.sequences[0].guidance == "There are eighteen"
    assert got.texts == {0: "There are eighteen."}


async def test_scores_of_the_guidance_come_on_request() -> None:
    for scored in (False, True):
        request = ask(budget=2, n=2, scores=scored)
        got = await answer(ScriptedStudent("."), ScriptedCloud("Hi", " ", " there"), request)
        assert got.report
        if scored:
            assert got.report.scores is not None
            assert [score.token for score in got.report.scores] == ["H", "i"]
            assert (got.report.scores[0].logprob, got.report.scores[0].rank, got.report.scores[0].entropy) == (
                -0.5,
                1,
                2,
            )
        else:
            assert got.report.scores is None


async def test_off_never_asks() -> None:
    cloud = ScriptedCloud("no")
    got = await answer(ScriptedStudent("yes"), cloud, ask(mode=Mode.OFF, budget=0))
    assert got.texts == {0: "yes"}
    assert cloud.requests == []
    assert got.report and got.report.teacher is None


async def test_max_tokens_counts_both_sides() -> None:
    student = ScriptedStudent(*[" w"] * 50)
    got = await answer(student, ScriptedCloud(*[" t"] * 4), ask(budget=4, max_tokens=10))
    assert got.usage and got.usage.completion_tokens == 10
    assert got.ends == {0: "length"}


async def test_a_budget_of_the_whole_answer_is_shown_whole() -> None:
    student = ScriptedStudent("never")
    got = await answer(student, ScriptedCloud("1", "8", "9"), ask(budget=2, max_tokens=2, alone=True))
    assert got.texts == {0: "18"}
    assert got.ends == {0: "length"}


async def test_the_teacher_may_write_it_all_and_the_student_is_left_in_peace() -> None:
    student = ScriptedStudent("never")
    got = await answer(student, ScriptedCloud("All", " of it", ends=FinishReason.STOP), ask(mode=Mode.TEACHER))
    assert got.texts == {0: "All of it"}
    assert student.sequences == []


async def test_the_student_stands_in_where_the_teacher_breaks_off() -> None:
    student = ScriptedStudent(" the student")
    cloud = ScriptedCloud("Begun", " by", ends=CloudFailed(FallbackReason.BROKEN))
    got = await answer(student, cloud, ask(mode=Mode.TEACHER))
    assert got.texts == {0: "Begun by the student"}
    assert student.sequences[0].guidance == "Begun by"
    assert got.report and got.report.fallback is FallbackReason.BROKEN


@pytest.mark.parametrize("reason", FallbackReason)
async def test_without_the_cloud_the_answer_is_the_students(reason: FallbackReason) -> None:
    metrics = EdgeMetrics()
    student = ScriptedStudent("Alone", ".")
    answering = AnswerService(student, ScriptedCloud(ends=CloudFailed(reason)), metrics)
    parts = [part async for part in answering.answer(ask())]
    assert isinstance(parts[-1], Finished)
    assert parts[-1].report.fallback is reason
    assert metrics.registry.get_sample_value("gkt_edge_fallbacks_total", {"reason": reason}) == 1
    assert metrics.registry.get_sample_value("gkt_edge_requests_total", {"mode": "fixed", "outcome": "ok"}) == 1


async def test_stop_strings_are_found_across_the_seam() -> None:
    student = ScriptedStudent("ND", " more")
    got = await answer(student, ScriptedCloud("Fine", " E", " x"), ask(budget=3, stops=(" END",)))
    assert got.texts == {0: "Fine"}
    assert got.ends == {0: "stop"}


async def test_text_held_at_the_seam_keeps_its_source() -> None:
    got = await answer(ScriptedStudent("xy"), ScriptedCloud("a", " b", " c"), ask(budget=3, stops=(" bxz",)))
    assert got.sources == [(Source.TEACHER, "a"), (Source.TEACHER, " b"), (Source.STUDENT, "xy")]


async def test_a_stop_string_in_the_guidance_stops_the_teacher() -> None:
    cloud = ScriptedCloud("One.", "\n", "Two", " three")
    student = ScriptedStudent("never")
    got = await answer(student, cloud, ask(budget=100, stops=("\n",)))
    assert got.texts == {0: "One."}
    assert cloud.closed_early == 1
    assert student.sequences[0].sampling is None


async def test_choices_share_the_guidance_and_go_on_each_by_itself() -> None:
    student = ScriptedStudent(" go", " on")
    got = await answer(student, ScriptedCloud("We", " x"), ask(budget=2, n=3))
    assert got.texts == dict.fromkeys(range(3), "We go on")
    assert [s.sampling.seed for s in student.sequences if s.sampling] == [7, 8, 9]
    assert got.report and len(got.report.segments) == 3
    assert got.usage and got.usage.completion_tokens == 2 + 3 * 2


async def test_log_probabilities_come_from_whoever_wrote() -> None:
    got = await answer(ScriptedStudent(" b"), ScriptedCloud("a", " x"), ask(budget=2, top_logprobs=2))
    assert [(e.token, e.logprob, len(e.top_logprobs)) for e in got.logprobs] == [
        ("a", -0.25, 0),
        (" x", -0.25, 0),
        (" b", -0.5, 2),
    ]


async def test_the_first_words_are_shown_before_the_teacher_is_done() -> None:
    cloud = ScriptedCloud("Now", " then")
    async with aclosing(AnswerService(ScriptedStudent(), cloud, EdgeMetrics()).answer(ask())) as parts:
        first = await anext(parts)
        assert isinstance(first, TextPart)
        assert first.text == "Now"
        assert not cloud.streams_closed.is_set()
    assert cloud.closed_early == 1


async def test_a_client_that_leaves_stops_both_sides() -> None:
    metrics = EdgeMetrics()
    student, cloud = ScriptedStudent("w"), ScriptedCloud("a", " b", " c")
    async with aclosing(AnswerService(student, cloud, metrics).answer(ask())) as parts:
        await anext(parts)
        cloud.gate.clear()
    await asyncio.wait_for(cloud.streams_closed.wait(), 5)
    assert student.sequences[0].closed
    assert metrics.registry.get_sample_value("gkt_edge_requests_total", {"mode": "fixed", "outcome": "cancelled"}) == 1
    assert metrics.registry.get_sample_value("gkt_edge_requests_running") == 0


async def test_an_engine_that_dies_is_an_error_not_an_answer() -> None:
    student = ScriptedStudent("a", "b", dies_after=1)
    with pytest.raises(EngineFailed):
        await answer(student, ScriptedCloud(), ask(mode=Mode.OFF, budget=0, n=2))
    assert all(sequence.closed for sequence in student.sequences)


async def test_the_cloud_is_told_the_request_id_and_the_trace() -> None:
    cloud = ScriptedCloud("x")
    await answer(ScriptedStudent(), cloud, ask(headers={"traceparent": "00-1-2-01"}))
    assert cloud.headers == [{"x-request-id": "r-1", "traceparent": "00-1-2-01"}]


def expand() -> Template:
    return Templates.load().get("expand")


async def drafted(
    student: ScriptedStudent, cloud: ScriptedCloud, request: AnswerRequest
) -> tuple[str, GktReport, Usage]:
    text, report, usage = "", None, None
    answering = AnswerService(student, cloud, EdgeMetrics(), options=AnswerOptions(expand_template=expand()))
    async for part in answering.answer(request):
        match part:
            case TextPart():
                assert part.source is Source.STUDENT
                text += part.text
            case Finished():
                report, usage = part.report, part.usage
    assert report is not None and usage is not None
    return text, report, usage


async def test_a_draft_is_seen_by_the_student_and_by_nobody_else() -> None:
    student, cloud = ScriptedStudent(), ScriptedCloud("9 * 2", " = 18", ends=FinishReason.STOP)
    text, report, usage = await drafted(student, cloud, ask(mode=Mode.OUTLINE, max_tokens=50))
    assert "9 * 2 = 18" in student.sequences[-1].prompt
    assert "9 * 2" not in text
    assert student.sequences[0].closed, "what was computed ahead leaves the engine"
    assert report.teacher is not None
    assert report.teacher.completion_tokens == 2
    assert usage.completion_tokens == report.student.completion_tokens
    assert student.sequences[-1].sampling is not None
    assert student.sequences[-1].sampling.max_tokens == 50, "the draft takes nothing from the answer"


async def test_what_has_come_of_a_draft_is_used_in_whole_words_and_without_any_the_student_is_alone() -> None:
    broken = ScriptedCloud("9 * 2", " = 1", ends=CloudFailed(FallbackReason.BROKEN))
    student = ScriptedStudent("It", " is.")
    text, report, _ = await drafted(student, broken, ask(mode=Mode.OUTLINE))
    assert "9 * 2 =" in student.sequences[-1].prompt
    assert "= 1" not in student.sequences[-1].prompt
    assert (report.fallback, bool(text)) == (FallbackReason.BROKEN, True)

    student = ScriptedStudent("It", " is.")
    text, report, _ = await drafted(
        student, ScriptedCloud(ends=CloudFailed(FallbackReason.UNREACHABLE)), ask(mode=Mode.OUTLINE)
    )
    assert "draft" not in student.sequences[-1].prompt.lower()
    assert (report.fallback, bool(text)) == (FallbackReason.UNREACHABLE, True)


async def test_a_draft_that_does_not_fit_is_left_out() -> None:
    student = ScriptedStudent("It", " is.")
    cloud = ScriptedCloud("x" * student.context_tokens, ends=FinishReason.STOP)
    text, report, _ = await drafted(student, cloud, ask(mode=Mode.OUTLINE))
    assert (report.fallback, bool(text)) == (FallbackReason.TOO_LONG, True)


class LateCloud(ScriptedCloud):
    """Sends nothing until the student has begun to write."""

    def __init__(self, student: ScriptedStudent, *pieces: str, ends: FinishReason | CloudFailed) -> None:
        super().__init__(*pieces, ends=ends)
        self.student = student

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        while not (len(self.student.sequences) > 1 and self.student.sequences[1].written):
            await asyncio.sleep(0)
        async with aclosing(super().guide(request, headers, traffic)) as events:
            async for event in events:
                yield event


LATE = CloudFailed(FallbackReason.FIRST_TOKEN_DEADLINE)


async def test_what_the_student_wrote_before_the_deadline_is_the_answer_after_it() -> None:
    student = ScriptedStudent("a", "b", "c")
    cloud = LateCloud(student, ends=LATE)
    got = await answer(student, cloud, ask(cache_salt="alice"), fallback_prefetch_after_s=0)
    assert got.texts == {0: "abc"}
    assert [sequence.cache_salt for sequence in student.sequences] == ["alice", "alice"]
    assert got.ends == {0: "stop"}
    assert student.sequences[0].sampling is None, "the one that waited wrote nothing"
    assert got.report and got.report.fallback == FallbackReason.FIRST_TOKEN_DEADLINE
    assert [(s.source, s.tokens) for s in got.report.segments[0]] == [("student", 3)]
    assert got.usage and (got.usage.completion_tokens, got.usage.cached_tokens) == (3, 2)


async def test_the_teacher_that_comes_after_all_is_heard() -> None:
    student = ScriptedStudent(" b", "c")
    cloud = LateCloud(student, "a", " x", ends=FinishReason.BUDGET)
    got = await answer(student, cloud, ask(budget=2), fallback_prefetch_after_s=0)
    assert got.texts == {0: "a bc"}
    assert student.sequences[0].guidance == "a"
    assert got.report
    assert [(s.source, s.chars) for s in got.report.segments[0]] == [("teacher", 1), ("student", 3)]


async def test_an_engine_that_has_no_room_for_a_head_start_answers_all_the_same() -> None:
    student = ScriptedStudent("a", room=1)
    cloud = ScriptedCloud(ends=LATE)
    assert (await answer(student, cloud, ask(), fallback_prefetch_after_s=0)).texts == {0: "a"}


async def test_a_head_start_whose_engine_dies_is_an_error_like_any_other() -> None:
    student = ScriptedStudent("a", "b", dies_after=1)
    with pytest.raises(EngineFailed):
        await answer(student, LateCloud(student, ends=LATE), ask(), fallback_prefetch_after_s=0)


async def test_no_head_start_where_the_student_waits_for_the_teacher_to_compute_or_writes_many_answers() -> None:
    for request, deferred in ((ask(), True), (ask(n=2), False), (ask(mode=Mode.TEACHER, alone=True), False)):
        student = ScriptedStudent("a")
        cloud = ScriptedCloud("x", ends=LATE)
        cloud.gate.clear()
        answering = asyncio.create_task(
            answer(student, cloud, request, fallback_prefetch_after_s=0, prefill_after_teacher=deferred)
        )
        for _ in range(20):
            await asyncio.sleep(0)
        assert all(sequence.sampling is None for sequence in student.sequences)
        cloud.gate.set()
        await answering
