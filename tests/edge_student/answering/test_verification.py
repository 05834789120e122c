"""Student and teacher in turns, both scripted: the lines that each one writes, and the stream that the client gets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from edge_student.answering.agreement import agrees
from edge_student.answering.choice import ChoiceEnded, Finished, TextPart
from edge_student.answering.context import AnswerOptions
from edge_student.answering.request import AnswerRequest
from edge_student.answering.service import AnswerService
from edge_student.cloud.client import CloudFailed, Traffic
from edge_student.metrics import EdgeMetrics
from edge_student.policy import Policy
from edge_student.student import Score, StudentSampling
from shared.protocol.gkt import FallbackReason, GktReport, Mode, Source
from shared.protocol.guidance import (
    Done,
    Event,
    FinishReason,
    Guidance,
    GuidanceRequest,
    Message,
    ReviewRequest,
    Start,
    Timing,
    Usage,
    Verdict,
)
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent

TRUTH = "She has 3 eggs.\nShe buys 2 more.\n3 + 2 = 5\nThe answer is 5."


class Believer(ScriptedStudent):
    """Continues any text with the truth, except for the lines about which it believes something else."""

    def __init__(self, *wrong: tuple[str, str], unsure: Sequence[str] = ()) -> None:
        super().__init__()
        self.belief = TRUTH
        for truth, belief in wrong:
            self.belief = self.belief.replace(truth, belief)
        self.unsure = unsure

    def words_behind(self, text: str) -> Sequence[tuple[str, float]]:
        line = text.count("\n")
        written = text.rpartition("\n")[2]
        believed = self.belief.splitlines(keepends=True)[line:]
        true = TRUTH.splitlines(keepends=True)[line:]
        # Behind a correction by the teacher it continues with the truth.
        here = believed if believed and believed[0].startswith(written) else true
        rest = "".join([here[0][len(written) :], *believed[1:]]) if here else ""
        words = re.findall(r"[^ \n]*[ \n]|[^ \n]+", rest)
        return [(word, -2.0 if any(word.startswith(one) for one in self.unsure) else -0.1) for word in words]

    def rank_behind(self, text: str, character: str) -> int:
        true = TRUTH[len(text) : len(text) + 1]
        return 0 if character == true and self.belief[: len(text)] != text else 5


@dataclass
class Reader:
    """A teacher that has the truth. It accepts the true beginning of a draft, and writes the rest of the line word by word."""

    fails_at: int | None = None
    pieces: int = 100
    requests: list[GuidanceRequest] = field(default_factory=list)
    closed_early: int = 0

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        number = len(self.requests)
        self.requests.append(request)
        traffic.sent += 10
        usage = Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=0)
        if number == self.fails_at:
            raise CloudFailed(FallbackReason.UNREACHABLE)
        finished = False
        try:
            yield Start(request_id="r", model="reader", template="answer@1#0", tokenizer="t")
            text = request.answer
            if isinstance(request, ReviewRequest):
                step = request.draft
                kept = next(n for n in range(len(step), -1, -1) if TRUTH.startswith(text + step[:n]))
                accepted = kept == len(step) and (not request.draft_is_final or text + step == TRUTH)
                yield Verdict(accepted_chars=kept, accepted=accepted, scored_tokens=3, usage=usage)
                text += step[:kept]
                if accepted:
                    finished = True
                    reason = FinishReason.STOP if request.draft_is_final else FinishReason.HANDBACK
                    yield Done(finish_reason=reason, usage=usage, timing=Timing(total_ms=1))
                    return
            rest = TRUTH[len(text) :].partition("\n")
            words = [rest[0], rest[1]] if self.pieces == 1 else [*rest[0], rest[1]]
            words = [word for word in words if word][: request.max_guidance_tokens]
            for word in words:
                yield Guidance(text=word, token_ids=[1], usage=usage)
                await asyncio.sleep(0)
            finished = True
            whole = text + "".join(words)
            reason = FinishReason.HANDBACK if whole.endswith("\n") else FinishReason.STOP
            if whole != TRUTH and reason is FinishReason.STOP:
                reason = FinishReason.BUDGET
            written = Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=len(words))
            yield Done(finish_reason=reason, usage=written, timing=Timing(total_ms=1), cost_usd=0.5)
        finally:
            self.closed_early += not finished

    async def close(self) -> None:
        raise AssertionError("not this one's to close")


@dataclass
class Answer:
    text: str = ""
    by: list[tuple[Source, str]] = field(default_factory=list)
    end: str | None = None
    report: GktReport | None = None
    usage: Usage | None = None


async def answer(
    student: ScriptedStudent,
    cloud: Reader,
    *,
    mode: Mode = Mode.REVIEW,
    budget: int = 200,
    handback_after: int = 0,
    confidence_threshold: float = 0.0,
    draft_lines: int = 1,
    max_correction_tokens: int = 0,
    max_tokens: int = 100,
    stops: tuple[str, ...] = (),
    draft_ahead: bool = True,
    leaves_after: int | None = None,
) -> Answer:
    policy = Policy(
        mode=mode,
        max_guidance_tokens=budget,
        acceptance_threshold=0.1,
        handback_after=handback_after,
        confidence_threshold=confidence_threshold,
        draft_lines=draft_lines,
        max_correction_tokens=max_correction_tokens,
    )
    messages = [Message(role="user", content="How many eggs?")]
    request = AnswerRequest("r-1", [1, 2, 3], messages, policy, StudentSampling(max_tokens=max_tokens), stops=stops)
    got = Answer()
    answering = AnswerService(student, cloud, EdgeMetrics(), options=AnswerOptions(draft_ahead=draft_ahead))
    async with aclosing(answering.answer(request)) as parts:
        async for part in parts:
            match part:
                case TextPart():
                    got.text += part.text
                    if got.by and got.by[-1][0] is part.source:
                        got.by[-1] = (part.source, got.by[-1][1] + part.text)
                    else:
                        got.by.append((part.source, part.text))
                    if leaves_after is not None and len(got.text) >= leaves_after:
                        return got
                case ChoiceEnded():
                    got.end = part.reason
                case Finished():
                    got.report, got.usage = part.report, part.usage
    return got


@pytest.mark.parametrize("draft_ahead", [True, False])
async def test_a_good_answer_is_the_students_and_each_line_was_read(draft_ahead: bool) -> None:
    student, cloud = Believer(), Reader()
    got = await answer(student, cloud, draft_ahead=draft_ahead)
    assert got.by == [(Source.STUDENT, TRUTH)]
    assert got.end == "stop"
    assert [request.draft for request in cloud.requests if isinstance(request, ReviewRequest)] == TRUTH.splitlines(True)
    assert [request.answer for request in cloud.requests] == ["", TRUTH[:16], TRUTH[:33], TRUTH[:43]]
    assert got.report and got.report.teacher
    assert got.report.teacher.completion_tokens == 0
    assert (got.report.teacher.calls, got.report.teacher.prompt_tokens, got.report.teacher.cached_tokens) == (4, 20, 8)
    assert got.report.teacher.bytes_sent == 40
    assert len(student.sequences) == (1 if draft_ahead else 4)
    assert all(sequence.closed for sequence in student.sequences)


async def test_the_teacher_goes_on_from_its_first_doubt_to_the_lines_end() -> None:
    student, cloud = Believer(("buys 2 more", "loses 2 of them"), ("= 5", "= 6")), Reader()
    got = await answer(student, cloud)
    assert got.text == TRUTH
    assert got.by == [
        (Source.STUDENT, "She has 3 eggs.\nShe "),
        (Source.TEACHER, "buys 2 more.\n"),
        (Source.STUDENT, "3 + 2 = "),
        (Source.TEACHER, "5\n"),
        (Source.STUDENT, "The answer is 5."),
    ]
    assert got.report
    assert [(s.source, s.chars) for s in got.report.segments[0]] == [(source, len(text)) for source, text in got.by]
    assert got.report.cost_usd == 1.0


async def test_the_student_takes_over_once_it_agrees_again() -> None:
    cloud = Reader()
    got = await answer(Believer(("buys 2 more", "loses 2 of them")), cloud, handback_after=3)
    assert got.text == TRUTH
    assert got.by[1] == (Source.TEACHER, "buys"), "the first letter is news to it, the next three it would have written"
    assert cloud.closed_early == 1


@pytest.mark.parametrize("draft_ahead", [True, False])
async def test_a_turn_has_so_many_tokens_and_then_the_student_goes_on(draft_ahead: bool) -> None:
    cloud = Reader()
    got = await answer(
        Believer(("buys 2 more", "loses 2 of them")), cloud, max_correction_tokens=2, draft_ahead=draft_ahead
    )
    assert (got.text, got.end) == (TRUTH, "stop")
    assert got.by[1] == (Source.TEACHER, "bu")
    assert {request.max_guidance_tokens for request in cloud.requests} == {2}
    assert cloud.closed_early == 0, "no stream is broken off, so the connection stays"
    steps = [request.draft for request in cloud.requests if isinstance(request, ReviewRequest)]
    assert steps[2] == "ys 2 more.\n", "what the student goes on with is read like all it writes"


async def test_a_turn_that_ends_inside_a_character_is_followed_by_a_longer_one() -> None:
    class Halving(Reader):
        """Writes words of four tokens each, whose text comes with the last token."""

        async def guide(
            self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
        ) -> AsyncGenerator[Event, None]:
            async with aclosing(super().guide(request, headers, traffic)) as events:
                async for event in events:
                    if isinstance(event, Guidance):
                        whole = request.max_guidance_tokens >= 4
                        yield Guidance(text=event.text if whole else "", token_ids=[1])
                        continue
                    yield event

    cloud = Halving()
    got = await answer(Believer(("buys 2 more", "loses 2 of them")), cloud, max_correction_tokens=1)
    assert (got.text, got.end) == (TRUTH, "stop")
    assert [request.max_guidance_tokens for request in cloud.requests[1:4]] == [1, 5, 1]


async def test_the_last_turn_has_what_is_left_of_the_budget() -> None:
    wrong = ("buys 2 more", "loses 2 of them"), ("= 5", "= 6"), ("answer is", "total is")
    cloud = Reader()
    got = await answer(Believer(*wrong), cloud, max_correction_tokens=2, budget=3)
    assert got.text == TRUTH.replace("answer is", "total is")
    assert [request.max_guidance_tokens for request in cloud.requests] == [2, 2, 1, 1]


async def test_an_answer_that_ends_too_early_goes_on() -> None:
    got = await answer(Believer(("3 + 2 = 5\nThe answer is 5.", "3 + 2 = 5")), Reader())
    assert got.text == TRUTH
    assert got.end == "stop"
    assert got.by[-1] == (Source.TEACHER, "\n") or got.by[-1][0] is Source.STUDENT


async def test_the_budget_spent_the_student_goes_on_alone() -> None:
    student, cloud = Believer(("buys 2 more", "loses 2 of them"), ("= 5", "= 6")), Reader()
    got = await answer(student, cloud, budget=5)
    assert got.by[1] == (Source.TEACHER, "buys ")
    assert got.text.endswith("3 + 2 = 6\nThe answer is 5.")
    assert len(cloud.requests) == 2


async def test_without_the_cloud_the_draft_stands() -> None:
    student = Believer(("buys 2 more", "loses 2 of them"))
    got = await answer(student, Reader(fails_at=1))
    assert got.text == student.belief
    assert got.end == "stop"
    assert got.report and got.report.fallback is FallbackReason.UNREACHABLE


async def test_on_demand_the_teacher_writes_what_the_student_is_not_sure_of() -> None:
    student = Believer(("3 + 2 = 5", "7 - 9 = 5"), unsure=["7"])
    cloud = Reader()
    got = await answer(student, cloud, mode=Mode.ON_DEMAND, confidence_threshold=0.5)
    assert got.text == TRUTH
    assert got.by[1] == (Source.TEACHER, "3 + 2 = 5\n")
    assert [type(request) for request in cloud.requests] == [GuidanceRequest]
    assert cloud.requests[0].answer == TRUTH[:33]
    assert cloud.requests[0].stop_at_line_end


@pytest.mark.parametrize("draft_ahead", [True, False])
async def test_a_step_is_as_much_as_the_student_is_sure_of(draft_ahead: bool) -> None:
    # A word has a log-probability of -0.1, or of -2 if the student is unsure of it.
    cloud = Reader()
    got = await answer(Believer(unsure=["3", "answer"]), cloud, confidence_threshold=0.5, draft_ahead=draft_ahead)
    assert got.by == [(Source.STUDENT, TRUTH)]
    steps = [request.draft for request in cloud.requests if isinstance(request, ReviewRequest)]
    assert steps == ["She has 3 ", "eggs.\nShe buys 2 more.\n3 ", "+ 2 = 5\nThe answer ", "is 5."]


async def test_a_step_ends_at_the_end_of_a_word() -> None:
    class Stammering(Believer):
        def words_behind(self, text: str) -> Sequence[tuple[str, float]]:
            return [(letter, -0.3) for word, _ in super().words_behind(text) for letter in word]

    cloud = Reader()
    got = await answer(Stammering(), cloud, confidence_threshold=0.5)
    assert got.by == [(Source.STUDENT, TRUTH)]
    steps = [request.draft for request in cloud.requests if isinstance(request, ReviewRequest)]
    assert steps[:4] == ["She", " has", " 3 ", "eggs"]
    assert "".join(steps) == TRUTH


@pytest.mark.parametrize("reason", [FinishReason.HANDBACK, FinishReason.BUDGET])
async def test_a_teacher_that_adds_nothing_is_not_called_without_end(reason: FinishReason) -> None:
    class Silent(Reader):
        async def guide(
            self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
        ) -> AsyncGenerator[Event, None]:
            self.requests.append(request)
            yield Start(request_id="r", model="silent", template="answer@1#0", tokenizer="t")
            usage = Usage(prompt_tokens=5, completion_tokens=0)
            yield Done(finish_reason=reason, usage=usage, timing=Timing(total_ms=1))

    cloud = Silent()
    got = await answer(Believer(unsure=["3", "answer"]), cloud, mode=Mode.ON_DEMAND, confidence_threshold=0.9)
    assert got.by == [(Source.STUDENT, TRUTH)]
    assert len(cloud.requests) == 1


async def test_who_is_sure_and_wrong_is_put_right_all_the_same() -> None:
    cloud = Reader()
    got = await answer(Believer(("= 5", "= 6")), cloud, confidence_threshold=0.01)
    assert got.text == TRUTH
    assert len(cloud.requests) == 2


async def test_several_lines_are_read_at_once() -> None:
    cloud = Reader()
    got = await answer(Believer(("= 5", "= 6")), cloud, draft_lines=100)
    assert got.text == TRUTH
    steps = [request.draft for request in cloud.requests if isinstance(request, ReviewRequest)]
    assert steps == [TRUTH.replace("= 5", "= 6"), "The answer is 5."]
    assert (await answer(Believer(), Reader(), draft_lines=2)).by == [(Source.STUDENT, TRUTH)]


async def test_stop_strings_and_token_limits_hold_across_turns() -> None:
    wrong = ("buys 2 more", "loses 2 of them")
    got = await answer(Believer(wrong), Reader(), stops=("2 more",))
    assert (got.text, got.end) == ("She has 3 eggs.\nShe buys ", "stop")
    got = await answer(Believer(wrong), Reader(), max_tokens=9)
    assert got.usage and got.usage.completion_tokens == 9
    assert TRUTH.startswith(got.text)
    assert got.end == "length"


async def test_who_leaves_stops_both_sides() -> None:
    student, cloud = Believer(("buys 2 more", "loses 2 of them")), Reader()
    await answer(student, cloud, leaves_after=22)
    assert cloud.closed_early == 1
    assert all(sequence.closed for sequence in student.sequences)


async def test_adaptive_guidance_ends_once_the_student_agrees() -> None:
    class Agreeing(ScriptedStudent):
        def rank_behind(self, text: str, character: str) -> int:
            return 0 if len(text) >= 6 else 3

    student, cloud = Agreeing(" and", " on"), ScriptedCloud("So", " it", " is", " five", " in", " all")
    policy = Policy(mode=Mode.ADAPTIVE, max_guidance_tokens=40, handback_after=3)
    messages = [Message(role="user", content="How many eggs?")]
    request = AnswerRequest("r-1", [1, 2, 3], messages, policy, StudentSampling(max_tokens=100))
    parts = [part async for part in AnswerService(student, cloud, EdgeMetrics()).answer(request)]
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    assert text == "So it is five and on"
    assert cloud.closed_early == 1


def test_agreement_is_of_the_last_tokens_and_not_inside_a_number() -> None:
    scores = [Score(b"x", -3.0, 4, 1.0), *(Score(b"x", -0.1, 0, 1.0) for _ in range(3))]
    assert agrees(scores, "so it", 3)
    assert not agrees(scores, "so it", 4)
    assert not agrees(scores, "so 1", 3)
    assert not agrees(scores, "so it", 0)
