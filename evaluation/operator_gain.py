"""What guidance buys the operator of a teacher: how many more answers a second it takes part in, at the same p95.

Answers of 200 tokens: the teacher writes all of one, or its guidance, and the edges' own devices, which are none of the
operator's, finish it. So many streams as the server bears are kept under way, and the next is sent as one ends. "The same p95"
is that of the time a token (a stream's whole time over its tokens, the wait for its first included: the "normalized latency" of
arXiv 2309.06180), so a reader anywhere sees text come as fast. It does not count that a short stream is over sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice

from evaluation.apis import Ask, Server, Written
from evaluation.client import Client
from evaluation.crowd import Rolling, rolling
from evaluation.figures import Figure, NotMeasured, median, p95, ratio
from evaluation.main_job import Result, Say
from evaluation.texts import lessons
from shared.guided import Mode

ANSWER_TOKENS = 200
PREFIX_TOKENS = 40
BASE = 4
"""Streams of the teacher alone that are under way: the p95 that these have is what the others are held to."""
LADDER = (1, 2, 4, 8)
"""Streams of guidance under way, of which those are sought that have the same p95."""
TURNS = 3
"""Each place under way is taken so often, at least."""


@dataclass(frozen=True)
class Load:
    """What a server did under so many streams at once: streams ended in a second, and the p95 of seconds a token."""

    per_s: float
    token_s: float


def measure_lengths(client: Client, questions: int, say: Say) -> list[int]:
    """How many tokens of the teacher the adaptive policy takes for each of some answers, through a real edge.

    What the teacher writes before a hand-over reaches it, a token or two, is not among them.
    """
    taken: list[int] = []
    for prompt in islice(lessons(), questions):
        say(f"operator_gain: the adaptive policy, question {len(taken) + 1} of {questions}")
        taken.append(client.answer(prompt, model="gkt", max_tokens=ANSWER_TOKENS, mode=Mode.ADAPTIVE).teacher_tokens)
    return taken


def measure_gain(
    server: Server, lengths: Sequence[int], rounds: int, say: Say, *, base: int = BASE, ask: Rolling = rolling
) -> Result:
    """`lengths` are those of the adaptive policy's guidance. Answers that end early by themselves count as they are."""
    numbers = count(1)
    prompts = (f"{next(numbers)}. {prompt}" for prompt in lessons())
    arms = {"40": [PREFIX_TOKENS], "adaptive": list(lengths)}
    gains: dict[str, list[float]] = {arm: [] for arm in arms}
    alone: list[Load] = []
    for number in range(rounds):
        say(f"operator_gain: the teacher alone, round {number + 1} of {rounds}")
        alone.append(_load(server, prompts, [ANSWER_TOKENS], base, ask))
        for arm, tokens in arms.items():
            say(f"operator_gain_{arm}: round {number + 1} of {rounds}")
            ladder = [_load(server, prompts, tokens, at_once, ask) for at_once in LADDER]
            gains[arm].append(ratio(_rate_at(ladder, alone[-1].token_s), alone[-1].per_s))
    per_s, token_s = median([load.per_s for load in alone]), median([load.token_s for load in alone])
    how = (
        f"answers/s that one teacher bears at the p95 a token that it has alone with {base} streams of {ANSWER_TOKENS} "
        f"({1000 * token_s:.0f} ms, {per_s:.3f} answers/s), over those; medians of {rounds} rounds"
    )
    taken = ratio(sum(lengths), len(lengths))
    return Result(
        [
            Figure("operator_gain_40", median(gains["40"]), f"guidance of {PREFIX_TOKENS} tokens: {how}"),
            Figure(
                "operator_gain_adaptive", median(gains["adaptive"]), f"adaptive, {taken:.0f} tokens on average: {how}"
            ),
        ],
        {
            "operator_alone_answers_per_s": per_s,
            "operator_alone_p95_token_ms": 1000 * token_s,
            "operator_adaptive_tokens": taken,
        },
    )


def _load(server: Server, prompts: Iterator[str], tokens: Sequence[int], at_once: int, ask: Rolling) -> Load:
    """Streams enough that every place is taken `TURNS` times, or every length once."""
    streams = max(TURNS * at_once, len(tokens))
    asks = [Ask(prompt, most) for prompt, most in zip(prompts, islice(cycle(tokens), streams), strict=False) if most]
    return _of(ask(server, asks, at_once), streams, at_once)


def _of(written: Sequence[Written], streams: int, at_once: int) -> Load:
    """Counted is the time in which all places are taken: until the last stream is sent."""
    began_s, until_s = min(one.sent_s for one in written), max(one.sent_s for one in written)
    ended = sum(one.end_s <= until_s for one in written)
    if not ended:
        raise NotMeasured(f"no stream ended before the last of {len(written)} was sent, {at_once} at once")
    per_s = ratio(ended, until_s - began_s) * streams / len(written)  # an answer without guidance costs nothing
    return Load(per_s, p95([ratio(one.end_s - one.sent_s, one.completion_tokens or 0) for one in written]))


def _rate_at(ladder: Sequence[Load], token_s: float) -> float:
    """Answers a second where the p95 is `token_s`: between the two steps of the ladder beside it, or the best step's."""
    within = [load for load in ladder if load.token_s <= token_s]
    if not within:
        fastest = 1000 * min(load.token_s for load in ladder)
        raise NotMeasured(
            f"no number of streams has a p95 of {1000 * token_s:.0f} ms a token; the least is {fastest:.0f} ms"
        )
    best = max(within, key=lambda load: load.per_s)
    beyond = [load for load in ladder if load.token_s > token_s and load.per_s > best.per_s]
    if not beyond:
        return best.per_s
    above = min(beyond, key=lambda load: load.token_s)
    part = (token_s - best.token_s) / (above.token_s - best.token_s)
    return best.per_s + part * (above.per_s - best.per_s)
