"""From a row of logits to a token and its log-probability."""

from __future__ import annotations

from typing import Any

import llama_cpp
import numpy as np

from edge_student.llama.context import LlamaContext, Logits
from edge_student.llama.vocab import Vocab
from edge_student.student import Alternative, Sampling


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


def scores(logits: Logits, token: int, top: int, vocab: Vocab) -> tuple[float, tuple[Alternative, ...]]:
    """Log-probability of a token under the model itself (before temperature), and the `top` most probable ones."""
    normaliser = _log_sum_exp(logits)
    alternatives: tuple[Alternative, ...] = ()
    if top:
        best = np.argpartition(logits, -top)[-top:]
        best = best[np.argsort(-logits[best], kind="stable")]
        alternatives = tuple(Alternative(vocab.piece(int(i)), float(logits[i]) - normaliser) for i in best)
    return float(logits[token]) - normaliser, alternatives


def _log_sum_exp(logits: Logits) -> float:
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum(dtype=np.float64)))
