"""The engine's own figures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from edge_student.llama.scheduler import Plan, Scheduler


class EngineMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.computed = Counter(
            "gkt_student_prompt_tokens", "Prompt and guidance tokens prefilled", registry=self.registry
        )
        self.generated = Counter("gkt_student_generation_tokens", "Tokens written", registry=self.registry)
        self.steps = Counter("gkt_student_steps", "Batches computed", registry=self.registry)
        self.evicted = Counter(
            "gkt_student_preemptions", "Sequences thrown out of the KV cache", registry=self.registry
        )
        self.cells = Gauge("gkt_student_kv_cache_tokens", "Tokens in the KV cache", registry=self.registry)
        self.sequences_open = Gauge("gkt_student_sequences", "Sequences running or waiting", registry=self.registry)

    def observe(self, scheduler: Scheduler, plan: Plan) -> None:
        self.cells.set(scheduler.cells_used)
        self.evicted.inc(len(plan.evicted))
        if plan.chunks:
            self.steps.inc()
            self.computed.inc(sum(c.count for c in plan.chunks if not c.sequence.decoding))
