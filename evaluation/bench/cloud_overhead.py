"""The figures of the cloud: what it adds to the engine in it, over vLLM's own server in the same minutes."""

from __future__ import annotations

from dataclasses import dataclass, field

from evaluation.bench.prompts import lessons
from evaluation.bench.results import Result, Say
from evaluation.bench.rounds import Effort, all_full, in_turn, rounds
from evaluation.figures import Figure, median, quantile, ratio
from evaluation.loadgen.apis import Ask, Server
from evaluation.loadgen.generator import Together, span_s, together

AT_LEAST = 0.97
EXTRA_MS = 10.0
WARM_TOKENS = 4


def measure_overhead(
    ours: Server, theirs: Server, streams: int, effort: Effort, say: Say, *, ask: Together = together
) -> Result:
    """Tokens per second of parallel streams, over vLLM's own server."""
    name = f"throughput_{streams}"
    mine, other = _take_turns(name, ours, theirs, streams, effort, say=say, ask=ask)
    # Of each round, as the machine is another one in every minute.
    shares = [ratio(*rates) for rates in zip(mine.rates, other.rates, strict=True)]
    figure = Figure(
        name,
        median(shares),
        f"tokens/s through POST /v1/guidance ({median(mine.rates):.1f}) over vllm serve ({median(other.rates):.1f}): the median "
        f"of the rounds' ratios; {_how(streams, effort)}",
        at_least=AT_LEAST,
    )
    raw = {
        f"{name}_cloud_tokens_per_s": median(mine.rates),
        f"{name}_vllm_tokens_per_s": median(other.rates),
        f"ttft_ms_{streams}_cloud": 1000 * median(mine.firsts_s),
        f"ttft_ms_{streams}_vllm": 1000 * median(other.firsts_s),
    }
    return Result([figure], raw)


def measure_first_token(ours: Server, theirs: Server, effort: Effort, say: Say, *, ask: Together = together) -> Result:
    """How much later the first token of a single stream comes than vLLM's own server's.

    The engine's own time for a prompt differs by tens of milliseconds from one request to the next: it takes many.
    """
    name = "ttft_extra_ms"
    mine, other = _take_turns(name, ours, theirs, 1, effort, say=say, ask=ask)
    extra = [1000 * (one - two) for one, two in zip(mine.firsts_s, other.firsts_s, strict=True)]
    figure = Figure(
        name,
        median(extra),
        f"the first token through POST /v1/guidance ({1000 * median(mine.firsts_s):.0f} ms) after vllm serve's "
        f"({1000 * median(other.firsts_s):.0f} ms): the median of the rounds' differences; {_how(1, effort)}",
        at_most=EXTRA_MS,
    )
    return Result([figure], {"ttft_extra_p25_ms": quantile(extra, 0.25), "ttft_extra_p75_ms": quantile(extra, 0.75)})


@dataclass
class _Turns:
    """Of one server, by round: tokens/s of the streams together, and the median of their first tokens."""

    rates: list[float] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)


def _take_turns(
    name: str, ours: Server, theirs: Server, streams: int, effort: Effort, *, say: Say, ask: Together
) -> tuple[_Turns, _Turns]:
    """Both take turns at being first, with the same questions, which neither has met before."""
    prompts = lessons()
    for server in (ours, theirs):
        ask(server, [Ask(next(prompts), WARM_TOKENS) for _ in range(streams)])
    turns = {ours.name: _Turns(), theirs.name: _Turns()}
    done = turns[theirs.name].rates
    for number in rounds(effort, done):
        say(f"{name}: round {len(done) + 1} of {effort.rounds}")
        asks = [Ask(next(prompts), effort.tokens) for _ in range(streams)]
        written = {server.name: ask(server, asks) for server in in_turn(ours, theirs, number)}
        if not all(all_full(streams_of, asks) for streams_of in written.values()):
            continue
        for who, streams_of in written.items():
            turns[who].rates.append(ratio(streams * effort.tokens, span_s(streams_of)))
            turns[who].firsts_s.append(median([one.first_s - one.sent_s for one in streams_of]))
    return turns[ours.name], turns[theirs.name]


def _how(streams: int, effort: Effort) -> str:
    return f"{streams} at once, {effort.tokens} tokens each, greedy, {effort.rounds} rounds in turn"
