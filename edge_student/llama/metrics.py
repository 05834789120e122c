"""The engine's own figures. Those that mean the same as llama-server's have its names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from edge_student.llama.batch import Plan
from edge_student.llama.scheduler import Scheduler


class EngineMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.computed = self._counter("llamacpp:prompt_tokens", "Prompt and guidance tokens computed")
        self.generated = self._counter("llamacpp:tokens_predicted", "Tokens written")
        self.steps = self._counter("llamacpp:n_decode", "Batches computed")
        self.step_seconds = self._counter("gkt_edge_engine_step_seconds", "Time of these, from decision to delivery")
        self.decode_seconds = self._counter("gkt_edge_engine_decode_seconds", "Time of it in llama.cpp's decode")
        self.asked = self._counter("gkt_edge_prefix_cache_queries", "Prompt tokens looked for in the KV cache")
        self.reused = self._counter("gkt_edge_prefix_cache_hits", "Prompt tokens found there")
        self.evicted = self._counter("gkt_edge_preemptions", "Sequences thrown out of the KV cache")
        self.cells = self._gauge("llamacpp:kv_cache_tokens", "Tokens in the KV cache")
        self.processing = self._gauge("llamacpp:requests_processing", "Sequences under way")
        self.deferred = self._gauge("llamacpp:requests_deferred", "Sequences that wait for their turn")
        self.sequences_open = self._gauge("gkt_edge_sequences", "Sequences under way or waiting")

    def observe(self, scheduler: Scheduler, plan: Plan) -> None:
        self.cells.set(scheduler.cells_used)
        running = len(scheduler.running)
        self.processing.set(running)
        self.deferred.set(len(scheduler) - running)
        self.evicted.inc(len(plan.evicted))
        for sequence in plan.begun:
            self.asked.inc(len(sequence.tokens))
            self.reused.inc(sequence.n_past)
        if plan.chunks:
            self.steps.inc()
            self.computed.inc(sum(c.count for c in plan.chunks if not c.sequence.decoding))

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
