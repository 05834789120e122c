"""From a row of logits to a token and its log-probability."""

from __future__ import annotations

import math
from typing import Any

import llama_cpp
import numpy as np

from edge_student.llama.context import LlamaContext, Logits
from edge_student.llama.vocab import Vocab
from edge_student.student import Alternative, Sampling, Score


class Sampler:
    """One sequence's way of choosing: greedy in numpy, or llama.cpp's chain of temperature, top-p and a seeded draw.

    The order is vLLM's (temperature before top-p), so that both sides of an answer mean the same by the two numbers.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._chain: Any = None
        if sampling.temperature > 0:
            self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
            add = llama_cpp.llama_sampler_chain_add
            add(self._chain, llama_cpp.llama_sampler_init_temp(sampling.temperature))
            if sampling.top_p < 1:
                add(self._chain, llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
            seed = llama_cpp.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
            add(self._chain, llama_cpp.llama_sampler_init_dist(seed))

    def sample(self, context: LlamaContext, index: int) -> int:
        if self._chain is None:
            return int(np.argmax(context.logits(index)))
        return context.sample(self._chain, index)

    def close(self) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


def score(logits: Logits, token: int, top: int, vocab: Vocab) -> Score:
    """How probable a token was to the model that gave these logits in front of it."""
    shifted = logits - logits.max()
    probabilities = np.exp(shifted)
    total = float(probabilities.sum(dtype=np.float64))
    return Score(
        token=vocab.piece(token),
        logprob=float(shifted[token]) - math.log(total),
        rank=int(np.count_nonzero(logits > logits[token])),
        # In nats: the log of the sum, less the mean of what was summed up.
        entropy=math.log(total) - float(np.dot(probabilities, shifted)) / total,
        alternatives=_best(shifted, math.log(total), top, vocab),
    )


def logprob(logits: Logits, token: int, top: int, vocab: Vocab) -> tuple[float, tuple[Alternative, ...]]:
    """Log-probability of a token under the model itself (before temperature), and the `top` most probable ones."""
    shifted = logits - logits.max()
    log_total = math.log(np.exp(shifted).sum(dtype=np.float64))
    return float(shifted[token]) - log_total, _best(shifted, log_total, top, vocab)


def _best(shifted: Logits, log_total: float, top: int, vocab: Vocab) -> tuple[Alternative, ...]:
    if not top:
        return ()
    best = np.argpartition(shifted, -top)[-top:]
    best = best[np.argsort(-shifted[best], kind="stable")]
    return tuple(Alternative(vocab.piece(int(i)), float(shifted[i]) - log_total) for i in best)
