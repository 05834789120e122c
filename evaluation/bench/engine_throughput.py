"""The figures of the student engine: our edge and another server in turn, on the same machine, model file and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import httpx
from prometheus_client.parser import text_string_to_metric_families

from evaluation.bench.prompts import lessons, plain_words
from evaluation.bench.results import Result, Say
from evaluation.bench.rounds import Effort, all_full, in_turn, rounds
from evaluation.figures import Figure, NotMeasured, median, p95, ratio
from evaluation.loadgen.apis import Ask, Server, Written
from evaluation.loadgen.generator import Together, span_s, together

WARM_TOKENS = 8
PREFIX_TOKENS = 600
SHORT_TOKENS = 8
PREFIX_REQUESTS = 16
PROMPT_TOKENS = 2000
DECODING_STREAMS = 4
DECODING_TOKENS = 480
"""Enough to go on writing for as long as the long prompt takes, whose first token ends the measurement."""
PYTHON_STREAMS = 16

STEP_S = "gkt_edge_engine_step_seconds_total"
DECODE_S = "gkt_edge_engine_decode_seconds_total"
STEPS = "llamacpp:n_decode_total"

Scrape = Callable[[Server], Mapping[str, float]]


def scrape(server: Server) -> dict[str, float]:
    """A server's metrics, those without labels. Raises NotMeasured."""
    try:
        text = httpx.get(f"{server.url}/metrics").raise_for_status().text
    except httpx.HTTPError as error:
        raise NotMeasured(f"the {server.name} has no metrics: {error}") from error
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def measure_rates(
    edge: Server,
    rival: Server,
    streams: int,
    effort: Effort,
    say: Say,
    *,
    name: str,
    at_least: float | None,
    ask: Together = together,
) -> Result:
    """Tokens per second of parallel streams, ours over the rival's."""
    prompts = lessons()
    rates: dict[str, list[float]] = {edge.name: [], rival.name: []}
    for server in (edge, rival):
        ask(server, [Ask(next(prompts), WARM_TOKENS) for _ in range(streams)])
    for number in rounds(effort, rates[rival.name]):
        say(f"{name}: round {len(rates[rival.name]) + 1} of {effort.rounds}")
        asks = [Ask(next(prompts), effort.tokens) for _ in range(streams)]
        values: dict[str, float] = {}
        for server in in_turn(edge, rival, number):
            written = ask(server, asks)
            if not all_full(written, asks):
                break
            values[server.name] = ratio(streams * effort.tokens, span_s(written))
        else:
            for who, value in values.items():
                rates[who].append(value)
    ours, theirs = median(rates[edge.name]), median(rates[rival.name])
    how = (
        f"{streams} at once, {effort.tokens} tokens each, greedy, prompts included, medians of {effort.rounds} in turn"
    )
    return Result(
        [
            Figure(
                name,
                ratio(ours, theirs),
                f"the edge ({ours:.1f} tokens/s) over {rival.name} ({theirs:.1f}): {how}",
                at_least=at_least,
            )
        ],
        {f"{name}_edge_tokens_per_s": ours, f"{name}_rival_tokens_per_s": theirs},
    )


def measure_shared_prefix(edge: Server, rival: Server, effort: Effort, say: Say, *, ask: Together = together) -> Result:
    """Requests per second that begin the same, ours over the rival's; each round with a beginning that neither has seen.

    And then once more with the same beginning, which each has in its cache by then.
    """
    tails = lessons()
    cold: dict[str, list[float]] = {edge.name: [], rival.name: []}
    warm: dict[str, list[float]] = {edge.name: [], rival.name: []}
    tokens: list[float] = []
    for server in (edge, rival):
        ask(server, [Ask(next(tails), WARM_TOKENS) for _ in range(PREFIX_REQUESTS)])
    for number in range(effort.rounds):
        say(f"shared prefix: round {number + 1} of {effort.rounds}")
        prefix = plain_words(PREFIX_TOKENS, seed=number)
        for rates in (cold, warm):
            asks = [Ask(f"{prefix}\n\n{next(tails)}", SHORT_TOKENS) for _ in range(PREFIX_REQUESTS)]
            for server in in_turn(edge, rival, number):
                written = ask(server, asks)
                if not all(stream.finish for stream in written):
                    raise NotMeasured(f"a stream of the {server.name} has no end")
                rates[server.name].append(ratio(len(written), span_s(written)))
                tokens += [float(stream.prompt_tokens) for stream in written if stream.prompt_tokens]
    ours, theirs = median(cold[edge.name]), median(cold[rival.name])
    warm_ours, warm_theirs = median(warm[edge.name]), median(warm[rival.name])
    length = _about(median(tokens), PREFIX_TOKENS)
    return Result(
        [
            Figure(
                "shared_prefix_16",
                ratio(ours, theirs),
                f"{PREFIX_REQUESTS} requests at once of {length:.0f} tokens that share about {PREFIX_TOKENS}, {SHORT_TOKENS} "
                f"tokens each, the prefix new to both: the edge ({ours:.2f} requests/s) over {rival.name} ({theirs:.2f}), "
                f"medians of {effort.rounds} in turn",
                at_least=1,
            ),
            Figure(
                "shared_prefix_16_again",
                ratio(warm_ours, warm_theirs),
                f"the same with other ends, the prefix in both caches: {warm_ours:.2f} over {warm_theirs:.2f} requests/s",
            ),
        ],
        {
            "shared_prefix_16_edge_requests_per_s": ours,
            "shared_prefix_16_rival_requests_per_s": theirs,
            "shared_prefix_16_again_edge_requests_per_s": warm_ours,
            "shared_prefix_16_again_rival_requests_per_s": warm_theirs,
            "shared_prefix_16_prompt_tokens": length,
        },
    )


def measure_chunking(chunked: Server, whole: Server, effort: Effort, say: Say, *, ask: Together = together) -> Result:
    """What decoding streams feel of a long prompt that comes in: p95 of their inter-token latency meanwhile."""
    prompts = lessons()
    latencies: dict[str, list[float]] = {chunked.name: [], whole.name: []}
    waits: dict[str, list[float]] = {chunked.name: [], whole.name: []}
    lengths: list[float] = []
    for number in rounds(effort, latencies[whole.name]):
        say(f"chunked prefill: round {len(latencies[whole.name]) + 1} of {effort.rounds}")
        late = Ask(plain_words(PROMPT_TOKENS, seed=number), SHORT_TOKENS)
        asks = [Ask(next(prompts), DECODING_TOKENS) for _ in range(DECODING_STREAMS)]
        pair = {server.name: ask(server, asks, late=late) for server in in_turn(chunked, whole, number)}
        if any(stream.finish for written in pair.values() for stream in written[:-1]):
            continue  # a stream had ended before the prompt was through: the load was not the same
        for who, written in pair.items():
            latencies[who].append(p95(gaps_during(written[-1], written[:-1])))
            waits[who].append(written[-1].first_s - written[-1].sent_s)
            lengths += [float(stream.prompt_tokens) for stream in written[-1:] if stream.prompt_tokens]
    ours, theirs = median(latencies[chunked.name]), median(latencies[whole.name])
    length = _about(median(lengths), PROMPT_TOKENS)
    return Result(
        [
            Figure(
                "itl_p95_chunked",
                ratio(ours, theirs),
                f"p95 inter-token latency of {DECODING_STREAMS} streams while a prompt of {length:.0f} tokens comes in: the edge "
                f"as it comes ({1e3 * ours:.0f} ms) over the edge without chunked prefill ({1e3 * theirs:.0f} ms), "
                f"medians of {effort.rounds} in turn",
                at_most=0.5,
            )
        ],
        {
            "itl_p95_chunked_ms": 1e3 * ours,
            "itl_p95_whole_ms": 1e3 * theirs,
            "itl_prompt_ttft_chunked_s": median(waits[chunked.name]),
            "itl_prompt_ttft_whole_s": median(waits[whole.name]),
            "itl_prompt_tokens": length,
        },
    )


def measure_python_share(
    edge: Server, effort: Effort, say: Say, *, ask: Together = together, metrics: Scrape = scrape
) -> Result:
    """Python's part of the engine's steps: what of their time isn't llama.cpp's decode, by the edge's own metrics."""
    prompts = lessons()
    shares: list[float] = []
    steps_ms: list[float] = []
    ask(edge, [Ask(next(prompts), WARM_TOKENS) for _ in range(PYTHON_STREAMS)])
    for _ in rounds(effort, shares):
        say(f"Python's share: round {len(shares) + 1} of {effort.rounds}")
        asks = [Ask(next(prompts), effort.tokens) for _ in range(PYTHON_STREAMS)]
        before = metrics(edge)
        written = ask(edge, asks)
        after = metrics(edge)
        if not all_full(written, asks):
            continue
        try:
            step_s, decode_s, steps = (after[name] - before[name] for name in (STEP_S, DECODE_S, STEPS))
        except KeyError as error:
            raise NotMeasured(f"the edge has no metric {error}") from error
        shares.append(1 - ratio(decode_s, step_s))
        steps_ms.append(1e3 * ratio(step_s, steps))
    return Result(
        [
            Figure(
                "python_share",
                median(shares),
                f"part of a step's time outside llama.cpp's decode, {PYTHON_STREAMS} streams of {effort.tokens} tokens, "
                f"median of {effort.rounds} ({median(steps_ms):.0f} ms a step)",
                at_most=0.10,
            )
        ],
        {"python_share_step_ms": median(steps_ms)},
    )


def gaps_during(late: Written, streams: Sequence[Written]) -> list[float]:
    """The inter-token latencies of streams that overlap a request's prefill, from sending it to its first token."""
    return [
        after - before
        for stream in streams
        for before, after in pairwise(stream.times)
        if after > late.sent_s and before < late.first_s
    ]


def _about(tokens: float, wanted: int) -> float:
    if not 0.9 * wanted <= tokens <= 1.15 * wanted:
        raise NotMeasured(f"the prompt has {tokens:.0f} tokens where about {wanted} were meant")
    return tokens
