"""What reviews cost the operator of a teacher: how many answers a second it reads in mode `review`, over those it writes.

A real edge answers some questions in mode `review`. From who wrote what of its answers its calls are made once more, straight to
the cloud: each step of the student's with a few words behind it that the teacher does not want, until the last. So the teacher's
engine is measured and nothing else, and the calls of an answer come one after the other, as an edge's do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Protocol

import httpx

from evaluation.bench.capacity_gain import ANSWER_TOKENS, answers_per_s
from evaluation.bench.prompts import lessons, plain_words
from evaluation.bench.results import Result, Say
from evaluation.figures import Figure, NotMeasured, median, ratio
from evaluation.loadgen.apis import Ask, Server, Written
from evaluation.loadgen.client import Client, timed
from evaluation.loadgen.generator import LIMIT_S, Rolling, rolling
from evaluation.loadgen.timeline import Answer
from shared.errors import StreamError
from shared.protocol.gkt import Mode, Source
from shared.protocol.guidance import Failure, Message, ReviewRequest
from shared.protocol.sse import decode_recorded

LADDER = (4, 16)
"""Answers under way."""
TURNS = 2
"""Each place under way is taken so often, at least."""
DOUBT = 0.5
"""As the edge asks by itself."""
UNWANTED_TOKENS = 3
"""Behind what stands of a step."""


@dataclass(frozen=True)
class Step:
    """What a review is asked for: text of the student's behind what is written of an answer."""

    answer: str
    text: str
    ends: bool


@dataclass(frozen=True)
class Reviewed:
    """An answer of a student under review, as the cloud met it."""

    question: str
    steps: Sequence[Step]
    teacher_tokens: int


class Reviewing(Protocol):
    """Has a server review answers, so many at a time. Raises NotMeasured."""

    def __call__(self, server: Server, answers: Sequence[Reviewed], at_once: int) -> list[Written]:
        """When each was begun and ended, in order."""


def measure_reviews(client: Client, questions: int, say: Say) -> list[Reviewed]:
    """Answers of a real edge. Raises NotMeasured."""
    answers: list[Reviewed] = []
    for question in islice(lessons(), questions):
        say(f"review_gain: an edge, question {len(answers) + 1} of {questions}")
        answer = client.answer(
            question, model="gkt", max_tokens=ANSWER_TOKENS, mode=Mode.REVIEW, guidance_tokens=ANSWER_TOKENS
        )
        answers.append(Reviewed(question, steps_of(answer), answer.teacher_tokens))
    return answers


def steps_of(answer: Answer) -> list[Step]:
    """The calls that an answer takes. Where the teacher has a word twice in succession nothing stood of the step between."""
    steps: list[Step] = []
    text = own = ""
    for chunk in answer.chunks:
        if chunk.source is Source.TEACHER:
            unwanted = " " + plain_words(UNWANTED_TOKENS, seed=len(steps))
            steps.append(Step(text, own + unwanted, ends=False))
            text, own = text + own + chunk.text, ""
        else:
            own += chunk.text
    return [*steps, Step(text, own, ends=answer.end == "stop")] if own else steps


def reviewing(server: Server, answers: Sequence[Reviewed], at_once: int) -> list[Written]:
    """`Reviewing`, over HTTP: a thread for each answer under way."""
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    with (
        httpx.Client(base_url=server.url, timeout=LIMIT_S, headers=server.headers, limits=limits) as http,
        ThreadPoolExecutor(at_once) as threads,
    ):
        return list(threads.map(partial(_review, http), answers))


def _review(http: httpx.Client, answer: Reviewed) -> Written:
    sent_s = time.perf_counter()
    for step in answer.steps:
        body = ReviewRequest(
            messages=[Message(role="user", content=answer.question)],
            max_guidance_tokens=1,
            answer=step.answer,
            draft=step.text,
            draft_is_final=step.ends,
            acceptance_threshold=DOUBT,
            stop_at_line_end=True,
        )
        reads = timed(http, "/v1/review", body.model_dump_json())
        try:
            *_, (_, last) = decode_recorded(reads)
        except StreamError as error:
            raise NotMeasured(f"a review broke off: {error}") from error
        if isinstance(last, Failure):
            raise NotMeasured(f"a review broke off: {last.code}: {last.message}")
    return Written(sent_s, [], time.perf_counter(), None)


def measure_review_gain(
    server: Server,
    answers: Sequence[Reviewed],
    rounds: int,
    say: Say,
    *,
    ask: Rolling = rolling,
    review: Reviewing = reviewing,
) -> Result:
    """Reviewed and written take turns; no question is met twice, so that of none more is cached than its own steps leave."""
    numbers = count(1)
    figures: list[Figure] = []
    raw: dict[str, float] = {}
    calls = ratio(sum(len(answer.steps) for answer in answers), len(answers))
    words = ratio(sum(answer.teacher_tokens for answer in answers), len(answers))
    for at_once in LADDER:
        name = f"review_gain_{at_once}"
        read: list[float] = []
        written: list[float] = []
        for number in range(rounds):
            say(f"{name}: round {number + 1} of {rounds}")
            some = list(islice(_afresh(answers, numbers), TURNS * at_once))
            read.append(answers_per_s(review(server, some, at_once), len(some), at_once))
            asks = [
                Ask(answer.question, ANSWER_TOKENS) for answer in islice(_afresh(answers, numbers), TURNS * at_once)
            ]
            written.append(answers_per_s(ask(server, asks, at_once), len(asks), at_once))
        how = (
            f"answers/s reviewed ({median(read):.3f}; {calls:.1f} calls and {words:.1f} of the teacher's tokens an answer) over "
            f"answers/s written ({median(written):.3f}; up to {ANSWER_TOKENS} tokens), {at_once} at once; {rounds} rounds in turn"
        )
        figures.append(Figure(name, median([ratio(*pair) for pair in zip(read, written, strict=True)]), how))
        raw |= {f"{name}_read_per_s": median(read), f"{name}_written_per_s": median(written)}
    return Result(figures, raw | {"review_gain_calls": calls, "review_gain_teacher_tokens": words})


def _afresh(answers: Sequence[Reviewed], numbers: Iterator[int]) -> Iterator[Reviewed]:
    """The answers over and over, each time to a question that no cache has met."""
    while True:
        for answer in answers:
            yield Reviewed(f"{next(numbers)}. {answer.question}", answer.steps, answer.teacher_tokens)
