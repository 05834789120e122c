"""The thread that owns the context: takes commands, computes batches, hands tokens back to asyncio."""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_student.llama.batch import Chunk, Copy, Plan, SequenceState
from edge_student.llama.context import Aborted, CacheFull, LlamaContext
from edge_student.llama.metrics import EngineMetrics
from edge_student.llama.sampling import Sampler, logprob, score
from edge_student.llama.scheduler import Scheduler
from edge_student.student import Score, TokenOutput
from shared.errors import EngineFailed, GktError, Overloaded

logger = logging.getLogger("gkt.engine")

Outcome = TokenOutput | GktError


@dataclass(eq=False)
class EngineSequence(SequenceState):
    """A sequence in the engine: its scheduling state, and how its tokens are chosen and delivered once it generates."""

    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    words: asyncio.Queue[Outcome] = field(default_factory=asyncio.Queue, kw_only=True)
    sampler: Sampler | None = None
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    generated: int = 0
    scores: list[Score] = field(default_factory=list)
    """Of the tokens from `scored_from` on, as far as they are computed."""
    score_top: int = 0
    cancelled: bool = False


class Engine:
    """Continuous batching over one context. Its public methods may be called from any thread and return at once."""

    def __init__(
        self, context: LlamaContext, scheduler: Scheduler, *, context_tokens: int, max_queue: int, nice: int = 0
    ) -> None:
        self.context_tokens = context_tokens
        self.failure: str | None = None
        self.metrics = EngineMetrics()
        self._context = context
        self._scheduler = scheduler
        self._limit = scheduler.n_running + max_queue
        self._nice = nice
        self._open: set[EngineSequence] = set()
        self._computing: Plan | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._told_full = False
        self._thread = threading.Thread(target=self._run, name="gkt-engine", daemon=True)
        self._thread.start()

    def submit(self, sequence: EngineSequence) -> None:
        """Begin to prefill a sequence. Raises Overloaded where the queue is full, EngineFailed where the engine is dead."""
        with self._wake:
            if self.failure:
                raise EngineFailed(self.failure)
            if sum(not one.cancelled for one in self._open) >= self._limit:
                raise Overloaded(f"{self._limit} answers are under way or waiting already", retry_after_s=1)
            self._open.add(sequence)
            self.metrics.sequences_open.set(len(self._open))
            self._post(lambda: self._scheduler.add(sequence))

    def rewrite(self, sequence: EngineSequence, keep: int, tokens: list[int]) -> None:
        """Guidance goes on: the sequence is its first `keep` tokens and then `tokens`."""
        self._command(lambda: self._rewrite(sequence, keep, tokens))

    def generate(self, sequence: EngineSequence, keep: int, tokens: list[int], sampler: Sampler) -> None:
        """Hand over: the sequence is its first `keep` tokens and then `tokens`; write on from there."""

        def command() -> None:
            self._rewrite(sequence, keep, tokens)
            sequence.sampler = sampler
            sequence.generating = True

        self._command(command)

    def remove(self, sequence: EngineSequence) -> None:
        """A sequence leaves, at the next step. A step that is mostly for such is interrupted, so that it comes at once.

        Others lose what the step has computed of theirs. Were a small part of it reason enough, clients that come and go could
        keep the rest from ever getting on.
        """
        with self._wake:
            if sequence.cancelled or sequence not in self._open:
                return
            sequence.cancelled = True
            if self._computing and self._mostly_cancelled(self._computing):
                self._context.abort()
            self._post(lambda: self._leave(sequence))

    def close(self) -> None:
        """Stop the thread and free the context. What was open fails."""
        with self._wake:
            self._closing = True
            self._context.abort()
            self._wake.notify()
        self._thread.join()

    @staticmethod
    def _mostly_cancelled(plan: Plan) -> bool:
        cancelled = [c.count for c in plan.chunks if isinstance(c.sequence, EngineSequence) and c.sequence.cancelled]
        return 2 * sum(cancelled) > plan.tokens

    def _rewrite(self, sequence: EngineSequence, keep: int, tokens: list[int]) -> None:
        sequence.deferred = False
        sequence.tokens[keep:] = tokens
        computed = min(keep, len(sequence.tokens) - 1)  # the last one's logits are needed at the hand-over
        if sequence.scored_from is not None:
            del sequence.scores[max(0, keep - sequence.scored_from) :]
            if keep < len(sequence.tokens):
                computed = min(computed, max(0, sequence.scored_from + len(sequence.scores) - 1))
        self._scheduler.cut(sequence, computed)

    def _command(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._post(command)

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake.notify()

    def _run(self) -> None:
        if self._nice:
            # On Linux niceness is a thread's own; the compute threads are started from this one and inherit it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        try:
            idle = False
            while self._take_commands(wait=idle):
                idle = not self._step()
        except Exception as error:
            logger.exception("the student engine died")
            self._fail(f"the student engine died: {error}")
        finally:
            self._fail(self.failure or "the student engine is closed")
            self._context.close()

    def _take_commands(self, *, wait: bool) -> bool:
        """Run what was posted. Returns False when it is time to go."""
        with self._wake:
            while wait and not self._commands and not self._closing:
                self._wake.wait()
            self._computing = None
            commands = list(self._commands)
            self._commands.clear()
        for command in commands:
            command()
        return not self._closing

    def _step(self) -> bool:
        """Compute one batch. Returns False where there was nothing to compute."""
        began = time.perf_counter()
        plan = self._scheduler.plan()
        for move in plan.moves:
            if isinstance(move, Copy):
                self._context.copy(move.source, move.target, move.length)
            else:
                self._context.forget(move.slot, move.start)
        self.metrics.observe(self._scheduler, plan)
        if plan.evicted and not self._told_full:
            self._told_full = True  # once: gkt_edge_preemptions counts the others
            logger.warning(
                "the KV cache of %d tokens is full: of answers under way some are computed again, which takes time; "
                "GKT_EDGE_KV_CACHE_TOKENS sets its size, GKT_EDGE_MAX_SEQUENCES how many share it",
                self._scheduler.n_cells,
            )
        if not plan.chunks:
            return False
        with self._wake:
            self._computing = plan
            self._context.arm()
        try:
            decoding = time.perf_counter()
            rows = self._context.decode(plan.chunks)
            decoded = time.perf_counter()
        except Aborted:
            return True
        except CacheFull:
            self._evict_one(plan)
            return True
        self._scheduler.advance(plan)
        deliveries: list[tuple[EngineSequence, Outcome]] = []
        for chunk, row in zip(plan.chunks, rows, strict=True):
            sequence = chunk.sequence
            assert isinstance(sequence, EngineSequence)  # noqa: S101 - nothing else is submitted
            if not chunk.logits or sequence.cancelled:
                continue
            if sequence.scored_from is not None and not sequence.generated:
                self._score(sequence, chunk, row)
            if sequence.generating and sequence.n_past == len(sequence.tokens):
                deliveries.append((sequence, self._next_word(sequence, row + chunk.logits - 1)))
        for sequence, outcome in deliveries:
            if isinstance(outcome, GktError) or outcome.end:
                self._leave(sequence)
        _deliver(deliveries)
        self.metrics.decode_seconds.inc(decoded - decoding)
        self.metrics.step_seconds.inc(time.perf_counter() - began)
        return True

    def _score(self, sequence: EngineSequence, chunk: Chunk, row: int) -> None:
        """The logits of a token say how probable the next one was, where there is one."""
        end = chunk.start + chunk.count
        for index, at in enumerate(range(end - chunk.logits + 1, min(end + 1, len(sequence.tokens))), start=row):
            if at == (sequence.scored_from or 0) + len(sequence.scores):  # else it was computed before
                logits = self._context.logits(index)
                sequence.scores.append(score(logits, sequence.tokens[at], sequence.score_top, self._context.vocab))

    def _next_word(self, sequence: EngineSequence, index: int) -> Outcome:
        sampler = sequence.sampler
        assert sampler is not None  # noqa: S101 - it generates
        vocab = self._context.vocab
        top = sampler.sampling.top_logprobs
        # The chain permutes no logits of the context, but the row is read first all the same: it is the model's own view.
        logits = self._context.logits(index) if top is not None else None
        try:
            token = sampler.sample(self._context, index)
        except EngineFailed as error:
            return error  # of this sequence alone
        probability, alternatives = (None, ()) if logits is None else logprob(logits, token, top or 0, vocab)
        if vocab.is_end(token):
            rest = sequence.decoder.decode(b"", final=True)
            return TokenOutput(text=rest, logprob=probability, alternatives=alternatives, end="stop")
        sequence.generated += 1
        sequence.tokens.append(token)
        self.metrics.generated.inc()
        full = sequence.generated >= sampler.sampling.max_tokens or len(sequence.tokens) >= self.context_tokens
        piece = vocab.piece(token)
        return TokenOutput(
            text=sequence.decoder.decode(piece, final=full),
            token=piece,
            token_id=token,
            logprob=probability,
            alternatives=alternatives,
            end="length" if full else None,
        )

    def _evict_one(self, plan: Plan) -> None:
        """The cache has less room than was counted: what is kept goes, then the youngest of the batch; alone it fails."""
        if self._scheduler.drop_kept():
            return
        youngest = max((chunk.sequence for chunk in plan.chunks), key=lambda s: s.arrival)
        assert isinstance(youngest, EngineSequence)  # noqa: S101
        if len(self._scheduler.running) > 1:
            self._scheduler.evict(youngest)
        else:
            self._leave(youngest, keep=False)
            _deliver([(youngest, EngineFailed("there is no room for this answer in the KV cache"))])

    def _leave(self, sequence: EngineSequence, *, keep: bool = True) -> None:
        self._scheduler.remove(sequence, keep=keep)
        if sequence.sampler:
            sequence.sampler.close()
        with self._wake:
            self._open.discard(sequence)
            self.metrics.sequences_open.set(len(self._open))

    def _fail(self, message: str) -> None:
        with self._wake:
            self.failure = message
            left = list(self._open)
            self._open.clear()
        _deliver([(sequence, EngineFailed(message)) for sequence in left])


def _deliver(outcomes: Sequence[tuple[EngineSequence, Outcome]]) -> None:
    """Hand outcomes to their event loops, one wake-up a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[EngineSequence, Outcome]]] = {}
    for sequence, outcome in outcomes:
        by_loop.setdefault(sequence.loop, []).append((sequence, outcome))
    for loop, batch in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_put, batch)


def _put(batch: list[tuple[EngineSequence, Outcome]]) -> None:
    for sequence, outcome in batch:
        sequence.words.put_nowait(outcome)
