"""The figures of the cloud: what it adds to the engine in it, over vLLM's own server in the same minutes."""

from __future__ import annotations

from evaluation.apis import Ask, Server
from evaluation.crowd import Together, span_s, together
from evaluation.figures import Figure, median, ratio
from evaluation.main_job import Result, Say
from evaluation.rounds import Effort, all_full, in_turn, rounds
from evaluation.texts import lessons

AT_LEAST = 0.97
EXTRA_MS = 10.0
WARM_TOKENS = 4


def measure_overhead(
    ours: Server, theirs: Server, streams: int, effort: Effort, say: Say, *, ask: Together = together
) -> Result:
    """Tokens per second of parallel streams, and how much later the first token comes, over vLLM's own server.

    They take turns at being first, with the same questions, which neither has met before.
    """
    name = f"throughput_{streams}"
    prompts = lessons()
    for server in (ours, theirs):
        ask(server, [Ask(next(prompts), WARM_TOKENS) for _ in range(streams)])
    rates: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    firsts: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    for number in rounds(effort, rates[theirs.name]):
        say(f"{name}: round {len(rates[theirs.name]) + 1} of {effort.rounds}")
        asks = [Ask(next(prompts), effort.tokens) for _ in range(streams)]
        written = {server.name: ask(server, asks) for server in in_turn(ours, theirs, number)}
        if not all(all_full(streams_of, asks) for streams_of in written.values()):
            continue
        for who, streams_of in written.items():
            rates[who].append(ratio(streams * effort.tokens, span_s(streams_of)))
            firsts[who].append(median([one.first_s - one.sent_s for one in streams_of]))
    # Of each round, as the machine is another one in every minute.
    shares = [ratio(mine, other) for mine, other in zip(rates[ours.name], rates[theirs.name], strict=True)]
    extra = [1000 * (mine - other) for mine, other in zip(firsts[ours.name], firsts[theirs.name], strict=True)]
    how = f"{streams} at once, {effort.tokens} tokens each, greedy, {effort.rounds} rounds in turn"
    figures = [
        Figure(
            name,
            median(shares),
            f"tokens/s through POST /v1/guidance ({median(rates[ours.name]):.1f}) over vllm serve "
            f"({median(rates[theirs.name]):.1f}): the median of the rounds' ratios; {how}",
            at_least=AT_LEAST,
        )
    ]
    if streams == 1:
        figures.append(
            Figure(
                "ttft_extra_ms",
                median(extra),
                f"the first token through POST /v1/guidance ({1000 * median(firsts[ours.name]):.0f} ms) after vllm serve's "
                f"({1000 * median(firsts[theirs.name]):.0f} ms): the median of the rounds' differences; {how}",
                at_most=EXTRA_MS,
            )
        )
    raw = {
        f"{name}_cloud_tokens_per_s": median(rates[ours.name]),
        f"{name}_vllm_tokens_per_s": median(rates[theirs.name]),
        f"ttft_ms_{streams}_cloud": 1000 * median(firsts[ours.name]),
        f"ttft_ms_{streams}_vllm": 1000 * median(firsts[theirs.name]),
        f"ttft_extra_ms_{streams}": median(extra),
    }
    return Result(figures, raw)
