"""Chooses a token from a row of logits, and computes log-probabilities."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from typing import Any

import llama_cpp
import numpy as np

from edge_student.llama.context import LlamaContext, Logits
from edge_student.llama.grammar import CANDIDATE, Candidates, Grammar, native_candidates
from edge_student.llama.vocab import Vocab
from edge_student.student import Alternative, Score, StudentSampling
from shared.errors import EngineFailed

MAX_REJECTIONS = 8
"""Tokens that a grammar rejects one by one before it filters the whole vocabulary."""


class Sampler:
    """Sampler of one sequence: greedy in numpy, or llama.cpp's chain for everything else.

    The order is vLLM's, so that the same numbers mean the same on both sides of an answer: bias and penalties, temperature,
    min-p, top-k, top-p, then typical (which vLLM does not have) and the seeded draw.
    """

    def __init__(self, sampling: StudentSampling, vocab: Vocab, prompt: Sequence[int], guidance: Sequence[int]) -> None:
        """`guidance` is the beginning of the answer. Raises EngineFailed if it does not match the structure."""
        self.sampling = sampling
        self._grammar = Grammar(vocab, sampling.structure.grammar) if sampling.structure else None
        if self._grammar and not all(self._grammar.accept(token) for token in guidance):
            raise EngineFailed("the guidance does not match the requested structure")
        logits = _logit_samplers(sampling, vocab, prompt, guidance)
        self._chain: Any = None
        if logits or sampling.temperature > 0:
            self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
            for sampler in [*logits, *_choosing_samplers(sampling)]:
                llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: LlamaContext, index: int) -> int:
        """Return the next token. Raises EngineFailed if the structure allows none."""
        if self._grammar:
            return self._sample_structured(self._grammar, context.logits(index))
        if self._chain is None:
            return int(np.argmax(context.logits(index)))
        return context.sample(self._chain, index)

    def _sample_structured(self, grammar: Grammar, logits: Logits) -> int:
        """Choose freely, then again without the rejected tokens; filter the whole vocabulary only after that, which is slow.

        The result is a choice among the allowed tokens: each keeps its share of the probability. `top_k` and similar options
        cut off among more tokens, as in llama.cpp's own programs.
        """
        candidates = np.zeros(len(logits), CANDIDATE)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        token = self._choose(candidates)
        for _ in range(MAX_REJECTIONS):
            if grammar.allows(token):
                break
            candidates = candidates[candidates["id"] != token]
            token = self._choose(candidates)
        else:
            if not grammar.allows(token):
                candidates = grammar.allowed(candidates)
                if not len(candidates):
                    raise EngineFailed("no token of the vocabulary continues the requested structure")
                token = self._choose(candidates)
        if self._chain is not None:
            llama_cpp.llama_sampler_accept(self._chain, token)
        grammar.accept(token)
        return token

    def _choose(self, candidates: Candidates) -> int:
        """Return the id of one candidate."""
        if self._chain is None:
            return int(candidates["id"][np.argmax(candidates["logit"])])
        candidates = candidates.copy()  # the chain sorts it, and changes its logits
        native = native_candidates(candidates)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(native))
        return int(candidates["id"][native.selected])

    def close(self) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


def _logit_samplers(
    sampling: StudentSampling, vocab: Vocab, prompt: Sequence[int], guidance: Sequence[int]
) -> list[Any]:
    """Return the samplers that change logits, which also apply to greedy decoding. The chain passes each chosen token to them."""
    samplers = []
    if sampling.logit_bias:
        biases = (llama_cpp.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias)
        samplers.append(llama_cpp.llama_sampler_init_logit_bias(vocab.n_tokens, len(biases), biases))
    # The window of a penalty covers everything, which is at most the context.
    window = len(prompt) + len(guidance) + sampling.max_tokens
    if sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        repetition = llama_cpp.llama_sampler_init_penalties(vocab.n_tokens, window, penalty, 0.0, 0.0)
        samplers.append(_fed(repetition, [*prompt, *guidance]))
    if sampling.frequency_penalty or sampling.presence_penalty:
        frequency, presence = sampling.frequency_penalty, sampling.presence_penalty
        penalties = llama_cpp.llama_sampler_init_penalties(vocab.n_tokens, window, 1.0, frequency, presence)
        samplers.append(_fed(penalties, guidance))
    return samplers


def _choosing_samplers(sampling: StudentSampling) -> list[Any]:
    if sampling.temperature == 0:
        return [llama_cpp.llama_sampler_init_greedy()]
    samplers = [llama_cpp.llama_sampler_init_temp(sampling.temperature)]
    if sampling.min_p > 0:
        samplers.append(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.top_k > 0:
        samplers.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        samplers.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.typical_p < 1:
        samplers.append(llama_cpp.llama_sampler_init_typical(sampling.typical_p, 1))
    seed = llama_cpp.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
    return [*samplers, llama_cpp.llama_sampler_init_dist(seed)]


def _fed(sampler: Any, tokens: Iterable[int]) -> Any:
    for token in tokens:
        llama_cpp.llama_sampler_accept(sampler, token)
    return sampler


def score(logits: Logits, token: int, top: int, vocab: Vocab) -> Score:
    """Return the score of a token under the logits in front of it."""
    shifted = logits - logits.max()
    probabilities = np.exp(shifted)
    total = float(probabilities.sum(dtype=np.float64))
    return Score(
        token=vocab.piece(token),
        logprob=float(shifted[token]) - math.log(total),
        rank=int(np.count_nonzero(logits > logits[token])),
        # In nats: the log of the sum minus the mean of the summed logits.
        entropy=math.log(total) - float(np.dot(probabilities, shifted)) / total,
        alternatives=_best(shifted, math.log(total), top, vocab),
        token_id=token,
    )


def logprob(logits: Logits, token: int, top: int, vocab: Vocab) -> tuple[float, tuple[Alternative, ...]]:
    """Return a token's log-probability before temperature, and the `top` most probable alternatives."""
    shifted = logits - logits.max()
    log_total = math.log(np.exp(shifted).sum(dtype=np.float64))
    return float(shifted[token]) - log_total, _best(shifted, log_total, top, vocab)


def _best(shifted: Logits, log_total: float, top: int, vocab: Vocab) -> tuple[Alternative, ...]:
    if not top:
        return ()
    best = np.argpartition(shifted, -top)[-top:]
    best = best[np.argsort(-shifted[best], kind="stable")]
    return tuple(Alternative(vocab.piece(int(i)), float(shifted[i]) - log_total, int(i)) for i in best)
