"""What scores cost the student's engine: a prompt read with the log-probability of each token, over one read plainly."""

from __future__ import annotations

import time
from typing import Any

import httpx

from evaluation.bench.prompts import plain_words
from evaluation.bench.results import Result, Say
from evaluation.bench.rounds import Effort
from evaluation.figures import Figure, NotMeasured, median, ratio
from evaluation.loadgen.apis import MODEL, Server

SCORED_TOKENS = 400
LIMIT_S = 300.0
SEEDS_FROM = 1000
"""Other texts than the other figures', so that no beginning of them is kept."""


def measure_scores(edge: Server, effort: Effort, say: Say, *, transport: httpx.BaseTransport | None = None) -> Result:
    """Seconds of a prompt with scores over the same without, each with texts that the edge has not seen. Raises NotMeasured."""
    took: dict[bool, list[float]] = {False: [], True: []}
    tokens: list[float] = []
    with httpx.Client(base_url=edge.url, timeout=LIMIT_S, transport=transport) as http:
        _read(http, plain_words(SCORED_TOKENS, seed=SEEDS_FROM - 1), scored=True)  # what is slow the first time
        for number in range(effort.rounds):
            say(f"scores: round {number + 1} of {effort.rounds}")
            for scored in (False, True) if number % 2 == 0 else (True, False):
                text = plain_words(SCORED_TOKENS, seed=SEEDS_FROM + 2 * number + scored)
                seconds, prompt_tokens = _read(http, text, scored=scored)
                took[scored].append(seconds / prompt_tokens)
                tokens.append(prompt_tokens)
    plain, with_scores = median(took[False]), median(took[True])
    return Result(
        [
            Figure(
                "scores_cost",
                ratio(with_scores, plain),
                f"a prompt of about {median(tokens):.0f} tokens read with the score of each ({1e3 * with_scores:.2f} ms a token) "
                f"over one read without ({1e3 * plain:.2f} ms), medians of {effort.rounds} in turn",
            )
        ],
        {"scores_ms_a_token": 1e3 * (with_scores - plain)},
    )


def _read(http: httpx.Client, text: str, *, scored: bool) -> tuple[float, int]:
    """Seconds that a prompt takes, and its tokens."""
    body: dict[str, Any] = {"model": MODEL, "prompt": text, "max_tokens": 1, "temperature": 0}
    if scored:
        body |= {"echo": True, "logprobs": 0}
    began = time.perf_counter()
    try:
        answer = http.post("/v1/completions", json=body).raise_for_status().json()
        seconds = time.perf_counter() - began
        return seconds, int(answer["usage"]["prompt_tokens"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise NotMeasured(f"the edge does not score a prompt: {error}") from error
