"""The operator's cost of reviews, with servers whose speed is known, and with the calls that a cloud gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from evaluation.bench import ab_rounds
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.review_capacity import (
    ANSWERS_PER_PLACE,
    LADDER,
    Draft,
    ReviewedAnswer,
    drafts_of,
    measure_review_gain,
    run_reviews,
)
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Server, StreamRequest, StreamResult
from evaluation.loadgen.timeline import parse_answer
from shared.protocol.gkt import Source
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.evaluation.scripted import answer_reads
from tests.running import serving

STUDENT, TEACHER = Source.STUDENT, Source.TEACHER
KEY = "k" * 20


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab_rounds, "REST_S", 0)


def drafts(*words: tuple[str, Source]) -> list[tuple[str, str, bool]]:
    timed = [(float(at), text, source) for at, (text, source) in enumerate(words)]
    answer = parse_answer(answer_reads(timed, total_s=9, teacher=1))
    return [(one.answer, one.text, one.is_final) for one in drafts_of(answer)]


def test_each_word_of_the_teachers_was_a_call_whose_step_did_not_stand_to_its_end() -> None:
    (first, second, third, last) = drafts(
        ("In", STUDENT), (" May", STUDENT), (" she", TEACHER), (" sold", STUDENT), (" 4", TEACHER), ("8", TEACHER),
        (".", STUDENT),
    )  # fmt: skip
    assert (first[0], second[0], third[0]) == ("", "In May she", "In May she sold 4")
    assert first[1].startswith("In May ")
    assert second[1].startswith(" sold ")
    assert third[1].startswith(" "), "nothing stood between two words of the teacher's"
    assert last == ("In May she sold 48", ".", False)


def test_an_answer_that_the_teacher_ends_has_no_call_behind_that() -> None:
    assert [text for text, *_ in drafts(("4", STUDENT), ("8", TEACHER))] == [""]


def test_the_gain_is_of_answers_a_second() -> None:
    met: list[str] = []

    def take(seconds: float, questions: Sequence[str], at_once: int) -> list[StreamResult]:
        met.extend(questions)
        at = [seconds * (number // at_once) for number in range(len(questions))]
        return [StreamResult(sent_s, [], sent_s + seconds, None) for sent_s in at]

    def review(server: Server, answers: Sequence[ReviewedAnswer], at_once: int) -> list[StreamResult]:
        return take(2.0, [one.question for one in answers], at_once)

    def write(server: Server, requests: Sequence[StreamRequest], *, concurrency: int) -> list[StreamResult]:
        return take(5.0, [request.prompt for request in requests], concurrency)

    answers = [
        ReviewedAnswer("Why?", [Draft("", "So", is_final=True)], 0),
        ReviewedAnswer("How?", [Draft("", "So", is_final=True)] * 3, 4),
    ]
    result = measure_review_gain(Server("cloud", "http://cloud"), answers, Rounds(2, run=write), review=review)
    assert [one.name for one in result.figures] == [f"review_gain_{at_once}" for at_once in LADDER]
    assert [one.value for one in result.figures] == pytest.approx([2.5] * len(LADDER))
    assert (result.raw["review_gain_calls"], result.raw["review_gain_teacher_tokens"]) == (2, 2)
    assert len(set(met)) == len(met) == 2 * 2 * ANSWERS_PER_PLACE * sum(LADDER), "no question is met twice"


async def test_a_cloud_reads_the_steps_of_an_answer_one_after_the_other() -> None:
    teacher = ScriptedTeacher("4")
    teacher.doubted = "the"
    app = create_app(
        CloudSettings(keys=[KEY], coalesce="off", max_prompt_tokens=100, max_model_len=200), teacher=teacher
    )
    answers = [
        ReviewedAnswer("Why?", [Draft("", "2 + 2 the", is_final=False), Draft("2 + 2 4", " so", is_final=True)], 1)
    ] * 2
    async with serving(app) as url:
        written = await asyncio.to_thread(run_reviews, Server("cloud", url, key=KEY), answers, 1)
        with pytest.raises(NotMeasured, match="401"):
            await asyncio.to_thread(run_reviews, Server("cloud", url, key="other"), answers, 1)
        assert teacher.scored == ["2 + 2 the", " so\0"] * 2, "the end is read as well"
        teacher.dies_after = 0
        with pytest.raises(NotMeasured, match="engine_failed"):
            await asyncio.to_thread(run_reviews, Server("cloud", url, key=KEY), answers, 2)
    assert written[0].end_s <= written[1].sent_s
