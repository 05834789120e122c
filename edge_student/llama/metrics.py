"""The engine's own figures. Those with the meaning of a metric of llama-server have its name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from edge_student.llama.batch import Batch
from edge_student.llama.scheduler import Scheduler


class EngineMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.computed = self._counter("llamacpp:prompt_tokens", "Prompt and guidance tokens computed")
        self.generated = self._counter("llamacpp:tokens_predicted", "Tokens generated")
        self.steps = self._counter("llamacpp:n_decode", "Batches computed")
        self.step_seconds = self._counter(
            "gkt_edge_engine_step_seconds", "Seconds of these batches, from scheduling to delivery"
        )
        self.decode_seconds = self._counter(
            "gkt_edge_engine_decode_seconds", "Seconds of that time in llama.cpp's decode"
        )
        self.queried = self._counter("gkt_edge_prefix_cache_queries", "Prompt tokens looked up in the prefix cache")
        self.reused = self._counter("gkt_edge_prefix_cache_hits", "Prompt tokens found in the prefix cache")
        self.evicted = self._counter("gkt_edge_preemptions", "Sequences evicted from the KV cache")
        self.cells = self._gauge("llamacpp:kv_cache_tokens", "Tokens in the KV cache")
        self.processing = self._gauge("llamacpp:requests_processing", "Sequences running")
        self.deferred = self._gauge("llamacpp:requests_deferred", "Sequences waiting to run")
        self.sequences_open = self._gauge("gkt_edge_sequences", "Sequences running or waiting")

    def observe(self, scheduler: Scheduler, batch: Batch) -> None:
        self.cells.set(scheduler.cache.cells_used)
        running = len(scheduler.running)
        self.processing.set(running)
        self.deferred.set(len(scheduler) - running)
        self.evicted.inc(len(batch.evicted))
        for sequence in batch.started:
            self.queried.inc(len(sequence.tokens))
            self.reused.inc(sequence.n_past)
        if batch.chunks:
            self.steps.inc()
            self.computed.inc(sum(c.count for c in batch.chunks if not c.sequence.decoding))

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
