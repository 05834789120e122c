"""Figures of the student engine: our edge and another server take turns on the same machine, model file and prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from evaluation.bench.ab_rounds import REST_S, Incomplete, Rounds, columns, compared, complete
from evaluation.bench.prompts import lessons, plain_words
from evaluation.figures import Figure, Measurement, NotMeasured, median, p95, ratio
from evaluation.loadgen.apis import MODEL, Server, StreamRequest, StreamResult
from evaluation.loadgen.generator import LIMIT_S, span_s

WARM_TOKENS = 8
PREFIX_TOKENS = 600
SHORT_TOKENS = 8
PREFIX_REQUESTS = 16
PROMPT_TOKENS = 2000
DECODING_STREAMS = 4
DECODING_TOKENS = 480
"""More tokens than a stream writes while the long prompt is read; the first token after that prompt ends the measurement."""
PYTHON_STREAMS = 16
SCORED_TOKENS = 400
SCORED_SEEDS_FROM = 1000
"""Seeds that no other figure uses, so that no prefix of the scored texts is cached."""

STEP_S = "gkt_edge_engine_step_seconds_total"
DECODE_S = "gkt_edge_engine_decode_seconds_total"
STEPS = "llamacpp:n_decode_total"

Requests = Sequence[StreamRequest]


def scrape(server: Server) -> dict[str, float]:
    """Return the metrics of a server that have no labels. Raise NotMeasured."""
    try:
        text = httpx.get(f"{server.url}/metrics").raise_for_status().text
    except httpx.HTTPError as error:
        raise NotMeasured(f"cannot read the metrics of the {server.name}: {error}") from error
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def measure_rates(
    edge: Server, baseline: Server, rounds: Rounds, *, name: str, streams: int, at_least: float | None
) -> Measurement:
    """Compare the tokens per second of concurrent streams."""
    rows = stream_rounds(name, {"edge": edge, "baseline": baseline}, streams, rounds)
    how = (
        f"the baseline is {baseline.name}; {streams} at once, {rounds.tokens} tokens each, greedy, prompts included, medians of "
        f"{rounds.count} rounds"
    )
    return compared(name, columns(rows, "tokens_per_s"), "tokens_per_s", how, at_least=at_least)


def stream_rounds(
    name: str, servers: Mapping[str, Server], streams: int, rounds: Rounds, *, warm_tokens: int = WARM_TOKENS
) -> dict[str, list[dict[str, float]]]:
    """Run concurrent streams on servers in turn, with prompts that are new to all of them.

    Return for each server and round `tokens_per_s` of all streams together, and `ttft_s`, the median of the streams.
    """
    prompts = lessons()

    def measure(server: Server, requests: Requests) -> dict[str, float]:
        results = complete(rounds.run(server, requests), requests)
        rate = ratio(streams * rounds.tokens, span_s(results))
        return {"tokens_per_s": rate, "ttft_s": median([stream.ttft_s for stream in results])}

    for server in servers.values():
        rounds.run(server, [StreamRequest(next(prompts), warm_tokens) for _ in range(streams)])
    jobs = rounds.jobs(lambda _: [StreamRequest(next(prompts), rounds.tokens) for _ in range(streams)])
    return rounds.take_turns(name, servers, jobs, measure)


def measure_shared_prefix(edge: Server, baseline: Server, rounds: Rounds) -> Measurement:
    """Compare the requests per second of prompts with one prefix: first new to the servers, then in their caches."""
    endings = lessons()
    lengths: list[float] = []

    def requests(prefix: str) -> Requests:
        return [StreamRequest(f"{prefix}\n\n{next(endings)}", SHORT_TOKENS) for _ in range(PREFIX_REQUESTS)]

    def rate(server: Server, requests: Requests) -> float:
        results = rounds.run(server, requests)
        if not all(stream.finish for stream in results):
            raise NotMeasured(f"a stream of the {server.name} was cut off")
        lengths.extend(stream.prompt_tokens for stream in results if stream.prompt_tokens)
        return ratio(len(results), span_s(results))

    def measure(server: Server, job: tuple[Requests, Requests]) -> dict[str, float]:
        cold = rate(server, job[0])
        time.sleep(REST_S)
        return {"cold": cold, "warm": rate(server, job[1])}

    for server in (edge, baseline):
        rounds.run(server, [StreamRequest(next(endings), WARM_TOKENS) for _ in range(PREFIX_REQUESTS)])
    prefixes = (plain_words(PREFIX_TOKENS, seed=number) for number in range(rounds.count))
    jobs = ((requests(prefix), requests(prefix)) for prefix in prefixes)
    rows = rounds.take_turns("shared prefix", {"edge": edge, "baseline": baseline}, jobs, measure)
    length = _check_length(median(lengths), PREFIX_TOKENS)
    how = (
        f"the baseline is {baseline.name}; {PREFIX_REQUESTS} requests at once of {length:.0f} tokens that share about "
        f"{PREFIX_TOKENS}, {SHORT_TOKENS} tokens each, the prefix new to both, medians of {rounds.count} rounds"
    )
    again = "the same with other endings, the prefix in both caches"
    return (
        compared("shared_prefix_16", columns(rows, "cold"), "requests_per_s", how, at_least=1)
        + compared("shared_prefix_16_again", columns(rows, "warm"), "requests_per_s", again)
        + Measurement([], {"shared_prefix_16_prompt_tokens": length})
    )


def measure_chunking(chunked: Server, whole: Server, rounds: Rounds) -> Measurement:
    """Compare the inter-token latency of decoding streams while a long prompt is read, with and without chunked prefill."""
    prompts = lessons()
    lengths: list[float] = []

    def measure(server: Server, job: tuple[StreamRequest, Requests]) -> dict[str, float]:
        straggler, requests = job
        *streams, late = rounds.run(server, requests, straggler=straggler)
        if any(stream.finish for stream in streams):
            raise Incomplete("streams ended before the long prompt was read")
        lengths.append(late.prompt_tokens or 0)
        return {"itl_ms": 1e3 * p95(gaps_during(late, streams)), "ttft_s": late.ttft_s}

    jobs = rounds.jobs(
        lambda number: (
            StreamRequest(plain_words(PROMPT_TOKENS, seed=number), SHORT_TOKENS),
            [StreamRequest(next(prompts), DECODING_TOKENS) for _ in range(DECODING_STREAMS)],
        )
    )
    rows = rounds.take_turns("chunked prefill", {"chunked": chunked, "whole": whole}, jobs, measure)
    length = _check_length(median(lengths), PROMPT_TOKENS)
    how = (
        f"p95 inter-token latency of {DECODING_STREAMS} streams while a prompt of {length:.0f} tokens is read, with the edge's "
        f"defaults and without chunked prefill; medians of {rounds.count} rounds"
    )
    latencies, waits = columns(rows, "itl_ms"), columns(rows, "ttft_s")
    raw = {f"itl_prompt_ttft_{target}_s": median(values) for target, values in waits.items()}
    return compared("itl_p95_chunked", latencies, "ms", how, raw_name="itl_p95", at_most=0.5) + Measurement(
        [], {**raw, "itl_prompt_tokens": length}
    )


def measure_python_share(
    edge: Server, rounds: Rounds, *, metrics: Callable[[Server], Mapping[str, float]] = scrape
) -> Measurement:
    """Measure the fraction of the engine's step time outside llama.cpp's decode, from the edge's metrics."""
    prompts = lessons()

    def measure(edge: Server, requests: Requests) -> dict[str, float]:
        before = metrics(edge)
        streams = rounds.run(edge, requests)
        after = metrics(edge)
        complete(streams, requests)
        try:
            step_s, decode_s, steps = (after[name] - before[name] for name in (STEP_S, DECODE_S, STEPS))
        except KeyError as error:
            raise NotMeasured(f"the edge has no metric {error}") from error
        return {"share": 1 - ratio(decode_s, step_s), "step_ms": 1e3 * ratio(step_s, steps)}

    rounds.run(edge, [StreamRequest(next(prompts), WARM_TOKENS) for _ in range(PYTHON_STREAMS)])
    jobs = rounds.jobs(lambda _: [StreamRequest(next(prompts), rounds.tokens) for _ in range(PYTHON_STREAMS)])
    rows = rounds.take_turns("Python's share", {"edge": edge}, jobs, measure)
    share, step_ms = (median(columns(rows, name)["edge"]) for name in ("share", "step_ms"))
    how = (
        f"fraction of a step's time ({step_ms:.0f} ms) outside llama.cpp's decode, {PYTHON_STREAMS} streams of {rounds.tokens} "
        f"tokens, median of {rounds.count} rounds"
    )
    return Measurement([Figure("python_share", share, how, at_most=0.10)], {"python_share_step_ms": step_ms})


def measure_scores(edge: Server, rounds: Rounds, *, transport: httpx.BaseTransport | None = None) -> Measurement:
    """Compare reading a prompt with the log-probability of each token and without, with texts that are new to the edge."""
    plain = {"model": MODEL, "max_tokens": 1, "temperature": 0}
    targets: dict[str, dict[str, Any]] = {"scored": plain | {"echo": True, "logprobs": 0}, "plain": plain}
    with httpx.Client(base_url=edge.url, timeout=LIMIT_S, transport=transport) as http:
        seeds = count(SCORED_SEEDS_FROM)

        def token_ms(fields: dict[str, Any], _: int) -> float:
            body = fields | {"prompt": plain_words(SCORED_TOKENS, seed=next(seeds))}
            began = time.perf_counter()
            try:
                answer = http.post("/v1/completions", json=body).raise_for_status().json()
                return 1e3 * (time.perf_counter() - began) / int(answer["usage"]["prompt_tokens"])
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise NotMeasured(f"the edge cannot score a prompt: {error}") from error

        token_ms(targets["scored"], 0)  # the first request is slower
        times = rounds.take_turns("scores", targets, range(rounds.count), token_ms)
    how = (
        f"a token of a prompt of about {SCORED_TOKENS} tokens, with the score of each; medians of {rounds.count} rounds"
    )
    extra_ms = median(times["scored"]) - median(times["plain"])
    return compared("scores_cost", times, "ms", how) + Measurement([], {"scores_ms_a_token": extra_ms})


def gaps_during(late: StreamResult, streams: Sequence[StreamResult]) -> list[float]:
    """Return the inter-token latencies of streams that overlap a request's prefill (from sending it to its first token)."""
    return [
        after - before
        for stream in streams
        for before, after in pairwise(stream.times)
        if after > late.sent_s and before < late.first_s
    ]


def _check_length(tokens: float, wanted: int) -> float:
    if not 0.9 * wanted <= tokens <= 1.15 * wanted:
        raise NotMeasured(f"a prompt that should have about {wanted} tokens has {tokens:.0f}")
    return tokens
