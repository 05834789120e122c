"""What guidance buys the operator of a teacher: how many more answers a second it takes part in, at the same p95.

Answers of 200 tokens: the teacher writes all of one, or its guidance, and the edges' own devices, which are none of the
operator's, finish it. A number of streams is kept under way, and the next is sent as one ends. "The same p95" is that of an
answer's whole time: the teacher's part as it was measured, and the student's at the pace that an edge has here by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice

from evaluation.bench.prompts import lessons
from evaluation.bench.results import Result, Say
from evaluation.figures import Figure, NotMeasured, median, p95, ratio
from evaluation.loadgen.apis import Ask, Server, Written
from evaluation.loadgen.client import Client
from evaluation.loadgen.generator import Rolling, rolling
from shared.protocol.gkt import Mode

ANSWER_TOKENS = 200
PREFIX_TOKENS = 40
BASE = 4
"""Answers of the teacher alone that are under way: the p95 that these have is what the others are held to."""
LADDER = (4, 8, 16)
"""Streams of guidance under way, of which those are sought that have the same p95."""
TURNS = 3
"""Each place under way is taken so often, at least."""


@dataclass(frozen=True)
class Load:
    """What a server bore with so many streams at once: answers ended in a second, and the p95 of an answer's time."""

    per_s: float
    p95_s: float


@dataclass(frozen=True)
class Edges:
    """What edges do: how many tokens of the teacher their adaptive policy takes for some answers, and their tokens/s."""

    adaptive: Sequence[int]
    student_per_s: float


def measure_edge(client: Client, questions: int, say: Say) -> Edges:
    """Of a real edge, while nothing else runs.

    What the teacher writes before a hand-over reaches it, a token or two, is not among those that are taken.
    """
    taken: list[int] = []
    rates: list[float] = []
    for prompt in islice(lessons(), questions):
        say(f"operator_gain: an edge, question {len(taken) + 1} of {questions}")
        taken.append(client.answer(prompt, model="gkt", max_tokens=ANSWER_TOKENS, mode=Mode.ADAPTIVE).teacher_tokens)
        rates.append(client.answer(prompt, model="gkt", max_tokens=PREFIX_TOKENS, mode=Mode.OFF).student_rate)
    return Edges(taken, median(rates))


def measure_gain(server: Server, edges: Edges, rounds: int, say: Say, *, ask: Rolling = rolling) -> Result:
    """Answers that end early by themselves count as they are."""
    numbers = count(1)
    prompts = (f"{next(numbers)}. {prompt}" for prompt in lessons())
    arms = {"40": [PREFIX_TOKENS], "adaptive": list(edges.adaptive)}
    gains: dict[str, list[float]] = {arm: [] for arm in arms}
    alone: list[Load] = []
    for number in range(rounds):
        say(f"operator_gain: the teacher alone, round {number + 1} of {rounds}")
        alone.append(_load(server, prompts, [ANSWER_TOKENS], BASE, edges, ask=ask))
        for arm, tokens in arms.items():
            say(f"operator_gain_{arm}: round {number + 1} of {rounds}")
            ladder = [_load(server, prompts, tokens, at_once, edges, ask=ask) for at_once in LADDER]
            gains[arm].append(ratio(_rate_at(ladder, alone[-1].p95_s), alone[-1].per_s))
    per_s, p95_s = median([load.per_s for load in alone]), median([load.p95_s for load in alone])
    how = (
        f"answers/s at the p95 ({p95_s:.1f} s) that the teacher has alone with {BASE} answers of {ANSWER_TOKENS} tokens under "
        f"way, over its answers/s then ({per_s:.3f}); students {edges.student_per_s:.1f} tokens/s; medians of {rounds} rounds"
    )
    taken = ratio(sum(edges.adaptive), len(edges.adaptive))
    return Result(
        [
            Figure("operator_gain_40", median(gains["40"]), f"guidance of {PREFIX_TOKENS} tokens: {how}"),
            Figure(
                "operator_gain_adaptive", median(gains["adaptive"]), f"adaptive, {taken:.0f} tokens on average: {how}"
            ),
        ],
        {
            "operator_alone_answers_per_s": per_s,
            "operator_alone_p95_s": p95_s,
            "operator_adaptive_tokens": taken,
            "operator_student_tokens_per_s": edges.student_per_s,
        },
    )


def _load(
    server: Server, prompts: Iterator[str], tokens: Sequence[int], at_once: int, edges: Edges, *, ask: Rolling
) -> Load:
    """Streams enough that every place is taken `TURNS` times, or every length once."""
    streams = max(TURNS * at_once, len(tokens))
    asks = [Ask(prompt, most) for prompt, most in zip(prompts, islice(cycle(tokens), streams), strict=False) if most]
    written = ask(server, asks, at_once)
    times = [
        one.end_s - one.sent_s + (ANSWER_TOKENS - asked.max_tokens) / edges.student_per_s
        for one, asked in zip(written, asks, strict=True)
    ]
    return Load(answers_per_s(written, streams, at_once), p95(times))


def answers_per_s(written: Sequence[Written], streams: int, at_once: int) -> float:
    """Answers in a second of which all places are taken: until the last stream is sent. One without guidance costs nothing."""
    began_s, until_s = min(one.sent_s for one in written), max(one.sent_s for one in written)
    ended = sum(one.end_s <= until_s for one in written)
    if not ended:
        raise NotMeasured(f"no stream ended before the last of {len(written)} was sent, {at_once} at once")
    return ratio(ended, until_s - began_s) * streams / len(written)


def _rate_at(ladder: Sequence[Load], p95_s: float) -> float:
    """Answers a second where the p95 is `p95_s`: between the two steps of the ladder beside it, or the best step's."""
    within = [load for load in ladder if load.p95_s <= p95_s]
    if not within:
        fastest = min(load.p95_s for load in ladder)
        raise NotMeasured(f"no number of streams has a p95 of {p95_s:.1f} s; the least is {fastest:.1f} s")
    best = max(within, key=lambda load: load.per_s)
    beyond = [load for load in ladder if load.p95_s > p95_s and load.per_s > best.per_s]
    if not beyond:
        return best.per_s
    above = min(beyond, key=lambda load: load.p95_s)
    part = (p95_s - best.p95_s) / (above.p95_s - best.p95_s)
    return best.per_s + part * (above.per_s - best.per_s)
