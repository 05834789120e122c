"""Capacity that reviews cost the operator of a teacher: answers a second reviewed in mode `review`, and written.

A real edge answers some questions in mode `review`. The sources of its answers' parts determine its calls, which are sent again,
directly to the cloud: each draft of the student's with a few words at its end that the teacher rejects, except the last. This
measures the teacher's engine and nothing else. The calls of one answer run one after the other, as an edge's do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice

import httpx

from evaluation.bench.ab_rounds import Progress, Rounds, compared
from evaluation.bench.capacity_gain import ANSWER_TOKENS, answers_per_s
from evaluation.bench.prompts import lessons, plain_words
from evaluation.figures import Measurement, NotMeasured, ratio
from evaluation.loadgen.apis import Server, StreamRequest, StreamResult
from evaluation.loadgen.client import Client, timed
from evaluation.loadgen.generator import LIMIT_S
from evaluation.loadgen.timeline import TimedAnswer, parse_guidance
from shared.protocol.gkt import Mode, Source
from shared.protocol.guidance import Message, ReviewRequest

LADDER = (4, 16)
"""Concurrent answers."""
ANSWERS_PER_PLACE = 2
ACCEPTANCE_THRESHOLD = 0.5
"""The edge's default."""
REJECTED_TOKENS = 3
"""Words at the end of a draft that the teacher rejects."""


@dataclass(frozen=True)
class Draft:
    """One call: the answer so far, and the student's text behind it."""

    answer: str
    text: str
    is_final: bool


@dataclass(frozen=True)
class ReviewedAnswer:
    """A question, and the calls that its answer took."""

    question: str
    drafts: Sequence[Draft]
    teacher_tokens: int


ReviewRunner = Callable[[Server, Sequence[ReviewedAnswer], int], list[StreamResult]]


def measure_reviews(client: Client, questions: int, progress: Progress) -> list[ReviewedAnswer]:
    """Collect answers of a real edge. Raise NotMeasured."""
    answers: list[ReviewedAnswer] = []
    for question in islice(lessons(), questions):
        progress(f"review_gain: an edge, question {len(answers) + 1} of {questions}")
        answer = client.answer(question, max_tokens=ANSWER_TOKENS, mode=Mode.REVIEW, guidance_tokens=ANSWER_TOKENS)
        answers.append(ReviewedAnswer(question, drafts_of(answer), answer.teacher_tokens))
    return answers


def drafts_of(answer: TimedAnswer) -> list[Draft]:
    """Return the calls of an answer. Between two consecutive chunks of the teacher the whole draft was rejected."""
    drafts: list[Draft] = []
    text = own = ""
    for chunk in answer.chunks:
        if chunk.source is Source.TEACHER:
            rejected = " " + plain_words(REJECTED_TOKENS, seed=len(drafts))
            drafts.append(Draft(text, own + rejected, is_final=False))
            text, own = text + own + chunk.text, ""
        else:
            own += chunk.text
    return [*drafts, Draft(text, own, is_final=answer.end == "stop")] if own else drafts


def run_reviews(server: Server, answers: Sequence[ReviewedAnswer], concurrency: int) -> list[StreamResult]:
    """Review answers in a closed loop, each in a thread. Return when each began and ended, in order. Raise NotMeasured."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    with (
        httpx.Client(base_url=server.url, timeout=LIMIT_S, headers=server.headers, limits=limits) as http,
        ThreadPoolExecutor(concurrency) as threads,
    ):
        return list(threads.map(partial(_review, http), answers))


def _review(http: httpx.Client, answer: ReviewedAnswer) -> StreamResult:
    sent_s = time.perf_counter()
    for draft in answer.drafts:
        body = ReviewRequest(
            messages=[Message(role="user", content=answer.question)],
            max_guidance_tokens=1,
            answer=draft.answer,
            draft=draft.text,
            draft_is_final=draft.is_final,
            acceptance_threshold=ACCEPTANCE_THRESHOLD,
            stop_at_line_end=True,
        )
        if parse_guidance(timed(http, "/v1/review", body.model_dump_json())).done is None:
            raise NotMeasured("a review ended early")
    return StreamResult(sent_s, [], time.perf_counter(), None)


def measure_review_gain(
    server: Server, answers: Sequence[ReviewedAnswer], rounds: Rounds, *, review: ReviewRunner = run_reviews
) -> Measurement:
    """Compare reviewing with writing. No question repeats, so that only an answer's own earlier calls are cached."""
    fresh = _with_new_questions(answers)
    calls = ratio(sum(len(answer.drafts) for answer in answers), len(answers))
    words = ratio(sum(answer.teacher_tokens for answer in answers), len(answers))

    def write(server: Server, some: Sequence[ReviewedAnswer], concurrency: int) -> list[StreamResult]:
        requests = [StreamRequest(answer.question, ANSWER_TOKENS) for answer in some]
        return rounds.run(server, requests, concurrency=concurrency)

    def measure(way: ReviewRunner, concurrency: int) -> float:
        some = list(islice(fresh, ANSWERS_PER_PLACE * concurrency))
        return answers_per_s(way(server, some, concurrency), len(some), concurrency)

    result = Measurement([], {"review_gain_calls": calls, "review_gain_teacher_tokens": words})
    for concurrency in LADDER:
        name = f"review_gain_{concurrency}"
        rates = rounds.take_turns(name, {"read": review, "written": write}, [concurrency] * rounds.count, measure)
        how = (
            f"answers reviewed ({calls:.1f} calls and {words:.1f} of the teacher's tokens each) and written (up to "
            f"{ANSWER_TOKENS} tokens), {concurrency} at once; {rounds.count} rounds"
        )
        result += compared(name, rates, "per_s", how, by_round=True)
    return result


def _with_new_questions(answers: Sequence[ReviewedAnswer]) -> Iterator[ReviewedAnswer]:
    """Repeat the answers without end, each time with a question that no cache has seen."""
    numbers = count(1)
    while True:
        for answer in answers:
            yield replace(answer, question=f"{next(numbers)}. {answer.question}")
