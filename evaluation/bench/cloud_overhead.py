"""Figures of the cloud's overhead: `POST /v1/guidance` and vLLM's own server take turns with the same engine settings."""

from __future__ import annotations

from evaluation.bench.ab_rounds import Rounds, columns, compared
from evaluation.bench.engine_throughput import stream_rounds
from evaluation.figures import Figure, Measurement, median, quantile
from evaluation.loadgen.apis import Server

WARM_TOKENS = 4


def measure_overhead(cloud: Server, vllm: Server, rounds: Rounds, *, streams: int) -> Measurement:
    """Compare the tokens per second of concurrent streams."""
    name = f"throughput_{streams}"
    rows = stream_rounds(name, {"cloud": cloud, "vllm": vllm}, streams, rounds, warm_tokens=WARM_TOKENS)
    how = f"POST /v1/guidance and vllm serve, median of the rounds' ratios; {_load(streams, rounds)}"
    first_s = columns(rows, "ttft_s")
    raw = {f"ttft_ms_{streams}_{server}": 1000 * median(values) for server, values in first_s.items()}
    # The ratio is taken in each round, because the machine's speed changes from minute to minute.
    rates = compared(name, columns(rows, "tokens_per_s"), "tokens_per_s", how, by_round=True, at_least=0.97)
    return rates + Measurement([], raw)


def measure_first_token(cloud: Server, vllm: Server, rounds: Rounds) -> Measurement:
    """Compare the time to the first token of a single stream.

    The engine's own time differs by tens of milliseconds from one prompt to the next, so this takes many rounds.
    """
    rows = stream_rounds("ttft_extra_ms", {"cloud": cloud, "vllm": vllm}, 1, rounds, warm_tokens=WARM_TOKENS)
    first_s = columns(rows, "ttft_s")
    extra_ms = [1000 * (ours - theirs) for ours, theirs in zip(first_s["cloud"], first_s["vllm"], strict=True)]
    how = (
        f"first token: POST /v1/guidance {1000 * median(first_s['cloud']):.0f} ms, vllm serve "
        f"{1000 * median(first_s['vllm']):.0f} ms; median of the rounds' differences; {_load(1, rounds)}"
    )
    return Measurement(
        [Figure("ttft_extra_ms", median(extra_ms), how, at_most=10)],
        {"ttft_extra_p25_ms": quantile(extra_ms, 0.25), "ttft_extra_p75_ms": quantile(extra_ms, 0.75)},
    )


def _load(streams: int, rounds: Rounds) -> str:
    return f"{streams} at once, {rounds.tokens} tokens each, greedy, {rounds.count} rounds"
