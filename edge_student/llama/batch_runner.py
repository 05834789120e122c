"""Runs batches on the context: cache operations, computation, and the choice and delivery of tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_student.llama.batch import Batch, CopyPrefix, SequenceState
from edge_student.llama.context import Aborted, CacheFull, LlamaContext
from edge_student.llama.engine_sequence import Delivery, EngineSequence, deliver
from edge_student.llama.metrics import EngineMetrics
from edge_student.llama.scheduler import Scheduler
from shared.errors import EngineFailed, GktError

logger = logging.getLogger("gkt.engine")


class BatchRunner:
    """Runs the scheduler's batches one after the other, in the engine's thread."""

    def __init__(
        self,
        context: LlamaContext,
        scheduler: Scheduler,
        metrics: EngineMetrics,
        *,
        context_tokens: int,
        remove: Callable[[EngineSequence], None],
    ) -> None:
        """`remove` is called with each sequence that has ended, before its last outcome is delivered."""
        self._context = context
        self._scheduler = scheduler
        self._metrics = metrics
        self._context_tokens = context_tokens
        self._remove = remove
        self._logged_full = False
        self._began = 0.0

    def prepare(self) -> Batch:
        """Return the next batch, with its cache operations done."""
        self._began = time.perf_counter()
        batch = self._scheduler.next_batch()
        for op in batch.cache_ops:
            if isinstance(op, CopyPrefix):
                self._context.copy(op.source, op.target, op.length)
            else:
                self._context.truncate(op.slot, op.start)
        self._metrics.observe(self._scheduler, batch)
        if batch.evicted and not self._logged_full:
            self._logged_full = True  # once; the metric gkt_edge_preemptions counts the others
            logger.warning(
                "the KV cache of %d tokens is full: some running answers are computed again later, which takes time; "
                "GKT_EDGE_KV_CACHE_TOKENS sets its size, GKT_EDGE_MAX_SEQUENCES the number of answers that share it",
                self._scheduler.cache.n_cells,
            )
        return batch

    def compute(self, batch: Batch) -> None:
        """Compute a batch and deliver the tokens that follow it. An aborted batch has no effect. Raises EngineFailed."""
        try:
            decoding = time.perf_counter()
            rows = self._context.decode(batch.chunks)
            decoded = time.perf_counter()
        except Aborted:
            return
        except CacheFull:
            self._make_room(batch)
            return
        self._scheduler.advance(batch)
        deliveries = self._choose_tokens(batch, rows)
        for sequence, outcome in deliveries:
            if isinstance(outcome, GktError) or outcome.end:
                self._remove(sequence)
        deliver(deliveries)
        self._metrics.decode_seconds.inc(decoded - decoding)
        self._metrics.step_seconds.inc(time.perf_counter() - self._began)

    def _choose_tokens(self, batch: Batch, rows: list[int]) -> list[Delivery]:
        """Score and choose tokens. `rows` has the batch index of each chunk's first logits."""
        deliveries: list[Delivery] = []
        for chunk, row in zip(batch.chunks, rows, strict=True):
            sequence = _engine_sequence(chunk.sequence)
            if not chunk.logits or sequence.cancelled:
                continue
            if sequence.scored_from is not None and not sequence.generated:
                sequence.add_scores(self._context, chunk, row)
            if sequence.generating and sequence.n_past == len(sequence.tokens):
                generated = sequence.generated
                outcome = sequence.next_token(self._context, row + chunk.logits - 1, self._context_tokens)
                deliveries.append((sequence, outcome))
                self._metrics.generated.inc(sequence.generated - generated)
        return deliveries

    def _make_room(self, batch: Batch) -> None:
        """Evict a prefix, or else the youngest sequence, since the cache has less room than was counted. Alone it fails."""
        if self._scheduler.cache.evict_oldest():
            return
        youngest = _engine_sequence(max((chunk.sequence for chunk in batch.chunks), key=lambda s: s.arrival))
        if len(self._scheduler.running) > 1:
            self._scheduler.evict(youngest)
        else:
            self._scheduler.remove(youngest, keep=False)
            self._remove(youngest)
            deliver([(youngest, EngineFailed("the KV cache has no room for this answer"))])


def _engine_sequence(sequence: SequenceState) -> EngineSequence:
    assert isinstance(sequence, EngineSequence)  # noqa: S101 - no others are submitted
    return sequence
