"""The operator's cost of reviews, with servers whose speed is known, and with the calls that a cloud gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from evaluation.bench.review_capacity import LADDER, TURNS, Reviewed, Step, measure_review_gain, reviewing, steps_of
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Ask, Server, Written
from evaluation.loadgen.timeline import answer
from shared.protocol.gkt import Source
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.evaluation.scripted import answer_reads
from tests.running import serving

STUDENT, TEACHER = Source.STUDENT, Source.TEACHER
KEY = "k" * 20


def steps(*words: tuple[str, Source]) -> list[tuple[str, str, bool]]:
    timed = [(float(at), text, source) for at, (text, source) in enumerate(words)]
    return [(one.answer, one.text, one.ends) for one in steps_of(answer(answer_reads(timed, total_s=9, teacher=1)))]


def test_each_word_of_the_teachers_was_a_call_whose_step_did_not_stand_to_its_end() -> None:
    (first, second, third, last) = steps(
        ("In", STUDENT), (" May", STUDENT), (" she", TEACHER), (" sold", STUDENT), (" 4", TEACHER), ("8", TEACHER),
        (".", STUDENT),
    )  # fmt: skip
    assert (first[0], second[0], third[0]) == ("", "In May she", "In May she sold 4")
    assert first[1].startswith("In May ")
    assert second[1].startswith(" sold ")
    assert third[1].startswith(" "), "nothing stood between two words of the teacher's"
    assert last == ("In May she sold 48", ".", False)


def test_an_answer_that_the_teacher_ends_has_no_call_behind_that() -> None:
    assert [text for text, *_ in steps(("4", STUDENT), ("8", TEACHER))] == [""]


def test_the_gain_is_of_answers_a_second() -> None:
    met: list[str] = []

    def take(seconds: float, questions: Sequence[str], at_once: int) -> list[Written]:
        met.extend(questions)
        at = [seconds * (number // at_once) for number in range(len(questions))]
        return [Written(sent_s, [], sent_s + seconds, None) for sent_s in at]

    def review(server: Server, answers: Sequence[Reviewed], at_once: int) -> list[Written]:
        return take(2.0, [one.question for one in answers], at_once)

    def write(server: Server, asks: Sequence[Ask], at_once: int) -> list[Written]:
        return take(5.0, [ask.prompt for ask in asks], at_once)

    answers = [Reviewed("Why?", [Step("", "So", ends=True)], 0), Reviewed("How?", [Step("", "So", ends=True)] * 3, 4)]
    result = measure_review_gain(Server("cloud", "http://cloud"), answers, 2, lambda _: None, ask=write, review=review)
    assert [one.name for one in result.figures] == [f"review_gain_{at_once}" for at_once in LADDER]
    assert [one.value for one in result.figures] == pytest.approx([2.5] * len(LADDER))
    assert (result.raw["review_gain_calls"], result.raw["review_gain_teacher_tokens"]) == (2, 2)
    assert len(set(met)) == len(met) == 2 * 2 * TURNS * sum(LADDER), "no question is met twice"


async def test_a_cloud_reads_the_steps_of_an_answer_one_after_the_other() -> None:
    teacher = ScriptedTeacher("4")
    teacher.doubted = "the"
    app = create_app(
        CloudSettings(keys=[KEY], coalesce="off", max_prompt_tokens=100, max_model_len=200), teacher=teacher
    )
    answers = [Reviewed("Why?", [Step("", "2 + 2 the", ends=False), Step("2 + 2 4", " so", ends=True)], 1)] * 2
    async with serving(app) as url:
        written = await asyncio.to_thread(reviewing, Server("cloud", url, key=KEY), answers, 1)
        with pytest.raises(NotMeasured, match="401"):
            await asyncio.to_thread(reviewing, Server("cloud", url, key="other"), answers, 1)
        assert teacher.scored == ["2 + 2 the", " so\0"] * 2, "the end is read as well"
        teacher.dies_after = 0
        with pytest.raises(NotMeasured, match=r"broke off.*engine_failed"):
            await asyncio.to_thread(reviewing, Server("cloud", url, key=KEY), answers, 2)
    assert written[0].end_s <= written[1].sent_s
