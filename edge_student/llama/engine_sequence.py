"""A sequence in the engine: chooses and scores its tokens, and delivers them to the event loop that reads it."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_student.llama.batch import Chunk, SequenceState
from edge_student.llama.context import LlamaContext
from edge_student.llama.sampling import Sampler, logprob, score
from edge_student.student import Score, TokenOutput
from shared.errors import EngineFailed, GktError

Outcome = TokenOutput | GktError


@dataclass(eq=False)
class EngineSequence(SequenceState):
    """The scheduling state of a sequence, and how its tokens are chosen and delivered once it generates."""

    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    outcomes: asyncio.Queue[Outcome] = field(default_factory=asyncio.Queue, kw_only=True)
    sampler: Sampler | None = None
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    generated: int = 0
    scores: list[Score] = field(default_factory=list)
    """Scores of the tokens from `scored_from` on, as far as they are computed."""
    score_top: int = 0
    cancelled: bool = False

    def replace_tokens(self, keep: int, tokens: list[int]) -> int:
        """Replace the tokens after the first `keep`. Returns how many computed tokens and scores stay valid."""
        self.deferred = False
        self.tokens[keep:] = tokens
        valid = min(keep, len(self.tokens) - 1)  # the last token's logits are needed at the handover
        if self.scored_from is not None:
            del self.scores[max(0, keep - self.scored_from) :]
            if keep < len(self.tokens):
                valid = min(valid, max(0, self.scored_from + len(self.scores) - 1))
        return valid

    def add_scores(self, context: LlamaContext, chunk: Chunk, row: int) -> None:
        """Score the tokens behind those with logits in a computed chunk. `row` is the batch index of its first logits."""
        end = chunk.start + chunk.count
        for index, at in enumerate(range(end - chunk.logits + 1, min(end + 1, len(self.tokens))), start=row):
            if at == (self.scored_from or 0) + len(self.scores):  # otherwise it was computed before
                self.scores.append(score(context.logits(index), self.tokens[at], self.score_top, context.vocab))

    def next_token(self, context: LlamaContext, index: int, context_tokens: int) -> Outcome:
        """Choose the next token from the logits at a batch index. An error concerns this sequence only."""
        sampler, vocab = self.sampler, context.vocab
        assert sampler is not None  # noqa: S101 - it generates
        top = sampler.sampling.top_logprobs
        # The sampler leaves the context's logits as they are, but they are read first anyway: they are the model's own view.
        logits = context.logits(index) if top is not None else None
        try:
            token = sampler.sample(context, index)
        except EngineFailed as error:
            return error
        probability, alternatives = (None, ()) if logits is None else logprob(logits, token, top or 0, vocab)
        if vocab.is_end(token):
            rest = self.decoder.decode(b"", final=True)
            return TokenOutput(text=rest, logprob=probability, alternatives=alternatives, end="stop")
        self.generated += 1
        self.tokens.append(token)
        full = self.generated >= sampler.sampling.max_tokens or len(self.tokens) >= context_tokens
        piece = vocab.piece(token)
        return TokenOutput(
            text=self.decoder.decode(piece, final=full),
            token=piece,
            token_id=token,
            logprob=probability,
            alternatives=alternatives,
            end="length" if full else None,
        )


Delivery = tuple[EngineSequence, Outcome]


def deliver(deliveries: Iterable[Delivery]) -> None:
    """Put outcomes into the queues of their sequences. Each event loop is woken up once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Delivery]] = {}
    for delivery in deliveries:
        by_loop.setdefault(delivery[0].loop, []).append(delivery)
    for loop, those in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_put, those)


def _put(deliveries: list[Delivery]) -> None:
    for sequence, outcome in deliveries:
        sequence.outcomes.put_nowait(outcome)
