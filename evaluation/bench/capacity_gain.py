"""Capacity that guidance gives the operator of a teacher: how many more answers a second it contributes to, at the same p95.

Answers have 200 tokens. The teacher writes all of them, or only guidance; then the student finishes on the edge's own device. The
load is a closed loop. The p95 is that of an answer's whole time: the teacher's part as measured, and the student's part computed
from the speed of an edge that was measured alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from evaluation.bench.ab_rounds import Progress, Rounds
from evaluation.bench.prompts import lessons
from evaluation.figures import Figure, Measurement, NotMeasured, median, p95, ratio
from evaluation.loadgen.apis import Server, StreamRequest, StreamResult
from evaluation.loadgen.client import Client
from evaluation.loadgen.generator import StreamRunner
from shared.protocol.gkt import Mode

ANSWER_TOKENS = 200
PREFIX_TOKENS = 40
BASE = 4
"""Concurrent answers of the teacher alone. Their p95 is the limit for guidance."""
LADDER = (4, 8, 16)
"""Concurrent guidance streams among which the best within that p95 is searched."""
STREAMS_PER_PLACE = 3


@dataclass(frozen=True)
class Load:
    """Throughput and latency at one concurrency."""

    answers_per_s: float
    p95_s: float


@dataclass(frozen=True)
class Edges:
    """Behaviour of edges: the teacher's tokens that the adaptive policy uses in each answer, and the student's tokens/s."""

    adaptive: Sequence[int]
    student_per_s: float


def measure_edge(client: Client, questions: int, progress: Progress) -> Edges:
    """Measure an edge while no other load runs.

    One or two tokens that the teacher wrote before a handover reached it are not counted.
    """
    used: list[int] = []
    rates: list[float] = []
    for prompt in islice(lessons(), questions):
        progress(f"operator_gain: an edge, question {len(used) + 1} of {questions}")
        used.append(client.answer(prompt, max_tokens=ANSWER_TOKENS, mode=Mode.ADAPTIVE).teacher_tokens)
        rates.append(client.answer(prompt, max_tokens=PREFIX_TOKENS, mode=Mode.OFF).student_rate)
    return Edges(used, median(rates))


def measure_gain(server: Server, edges: Edges, rounds: Rounds) -> Measurement:
    """Compare answers per second with guidance and without. Answers that end early count as they are."""
    prompts = (f"{number}. {prompt}" for number, prompt in enumerate(lessons(), 1))

    def measure(target: tuple[Sequence[int], Sequence[int]], _: int) -> list[Load]:
        lengths, ladder = target
        return [
            _load(server, prompts, lengths, edges, concurrency=concurrency, run=rounds.run) for concurrency in ladder
        ]

    targets: dict[str, tuple[Sequence[int], Sequence[int]]] = {
        "alone": ([ANSWER_TOKENS], [BASE]),
        "40": ([PREFIX_TOKENS], LADDER),
        "adaptive": (edges.adaptive, LADDER),
    }
    loads = rounds.take_turns("operator_gain", targets, range(rounds.count), measure)
    alone = [load for (load,) in loads["alone"]]
    gains = {
        arm: [ratio(_rate_at(ladder, one.p95_s), one.answers_per_s) for ladder, one in zip(ladders, alone, strict=True)]
        for arm, ladders in loads.items()
        if arm != "alone"
    }
    per_s, p95_s = median([load.answers_per_s for load in alone]), median([load.p95_s for load in alone])
    used = ratio(sum(edges.adaptive), len(edges.adaptive))
    how = (
        f"answers/s, divided by the teacher's alone ({per_s:.3f} with {BASE} answers of {ANSWER_TOKENS} tokens at once), at the "
        f"same p95 ({p95_s:.1f} s); students {edges.student_per_s:.1f} tokens/s; medians of {rounds.count} rounds"
    )
    return Measurement(
        [
            Figure("operator_gain_40", median(gains["40"]), f"guidance of {PREFIX_TOKENS} tokens: {how}"),
            Figure(
                "operator_gain_adaptive", median(gains["adaptive"]), f"adaptive, {used:.0f} tokens on average: {how}"
            ),
        ],
        {
            "operator_alone_answers_per_s": per_s,
            "operator_alone_p95_s": p95_s,
            "operator_adaptive_tokens": used,
            "operator_student_tokens_per_s": edges.student_per_s,
        },
    )


def _load(
    server: Server, prompts: Iterator[str], lengths: Sequence[int], edges: Edges, *, concurrency: int, run: StreamRunner
) -> Load:
    """Run streams until every length has been used, and every place in the loop `STREAMS_PER_PLACE` times."""
    streams = max(STREAMS_PER_PLACE * concurrency, len(lengths))
    all_requests = (StreamRequest(next(prompts), length) for length in islice(cycle(lengths), streams))
    requests = [request for request in all_requests if request.max_tokens]
    results = run(server, requests, concurrency=concurrency)
    times = [
        stream.end_s - stream.sent_s + (ANSWER_TOKENS - request.max_tokens) / edges.student_per_s
        for stream, request in zip(results, requests, strict=True)
    ]
    return Load(answers_per_s(results, streams, concurrency), p95(times))


def answers_per_s(results: Sequence[StreamResult], answers: int, concurrency: int) -> float:
    """Return the answers per second while all places were in use: until the last stream was sent.

    `answers` includes those that needed no stream, which cost the teacher nothing.
    """
    began_s, until_s = min(stream.sent_s for stream in results), max(stream.sent_s for stream in results)
    ended = sum(stream.end_s <= until_s for stream in results)
    if not ended:
        raise NotMeasured(f"no stream ended before the last of {len(results)} was sent, {concurrency} at once")
    return ratio(ended, until_s - began_s) * answers / len(results)


def _rate_at(ladder: Sequence[Load], p95_s: float) -> float:
    """Interpolate the answers per second at a p95 between two steps of the ladder, or return those of the best step."""
    within = [load for load in ladder if load.p95_s <= p95_s]
    if not within:
        fastest = min(load.p95_s for load in ladder)
        raise NotMeasured(f"no concurrency keeps the p95 within {p95_s:.1f} s; the lowest p95 is {fastest:.1f} s")
    best = max(within, key=lambda load: load.answers_per_s)
    beyond = [load for load in ladder if load.p95_s > p95_s and load.answers_per_s > best.answers_per_s]
    if not beyond:
        return best.answers_per_s
    above = min(beyond, key=lambda load: load.p95_s)
    fraction = (p95_s - best.p95_s) / (above.p95_s - best.p95_s)
    return best.answers_per_s + fraction * (above.answers_per_s - best.answers_per_s)
