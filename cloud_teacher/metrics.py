"""The cloud's metrics. The engine's own metrics (`vllm:*`) follow them at `/metrics`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.protocol.guidance import Usage

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class CloudMetrics:
    """All metrics of one cloud. `running` and `waiting` return the current numbers of requests."""

    def __init__(self, running: Callable[[], int] = int, waiting: Callable[[], int] = int) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gkt_cloud_requests",
            "Requests by outcome: a finish reason, an error code, or `client_disconnected`",
            ["outcome"],
            registry=self.registry,
        )
        self.prompt_tokens = Counter(
            "gkt_cloud_prompt_tokens", "Prompt tokens of admitted requests", registry=self.registry
        )
        self.cached_tokens = Counter(
            "gkt_cloud_cached_tokens", "Prompt tokens found in the prefix cache", registry=self.registry
        )
        self.output_tokens = Counter("gkt_cloud_output_tokens", "Output tokens of the teacher", registry=self.registry)
        self.cost = Counter("gkt_cloud_cost_usd", "Cost at the operator's prices", registry=self.registry)
        self.reused_requests = Counter(
            "gkt_cloud_reused_requests",
            "Requests that reused the response of another one, running (`coalesced`) or complete (`cached`)",
            ["kind"],
            registry=self.registry,
        )
        self.reused_tokens = Counter(
            "gkt_cloud_reused_tokens", "Output tokens of reused responses", registry=self.registry
        )
        self.teacher_requests = Counter(
            "gkt_cloud_teacher_requests",
            "Requests by teacher and outcome, without those that failed over (`gkt_cloud_teacher_failovers`)",
            ["teacher", "outcome"],
            registry=self.registry,
        )
        self.teacher_tokens = Counter(
            "gkt_cloud_teacher_tokens",
            "Tokens by teacher and kind: prompt, cached prompt, completion",
            ["teacher", "kind"],
            registry=self.registry,
        )
        self.teacher_cost = Counter(
            "gkt_cloud_teacher_cost_usd", "Cost by teacher, at its prices", ["teacher"], registry=self.registry
        )
        self.failovers = Counter(
            "gkt_cloud_teacher_failovers",
            "Requests that failed over from this teacher before its first token, by error code",
            ["teacher", "code"],
            registry=self.registry,
        )
        self.up = Gauge(
            "gkt_cloud_teacher_up", "1 if a teacher can serve requests, else 0", ["teacher"], registry=self.registry
        )
        self.first_token = Histogram(
            "gkt_cloud_time_to_first_token_seconds",
            "Time from the arrival of a request to its first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.inter_token = Histogram(
            "gkt_cloud_inter_token_latency_seconds",
            "Time between two guidance events",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "gkt_cloud_request_duration_seconds",
            "Time from the arrival of a request to its end",
            buckets=SECONDS,
            registry=self.registry,
        )
        Gauge("gkt_cloud_requests_running", "Requests with a slot of the engine", registry=self.registry).set_function(
            running
        )
        Gauge("gkt_cloud_requests_waiting", "Requests in the queue", registry=self.registry).set_function(waiting)

    def count_reused(self, kind: str, tokens: int, cost_usd: float) -> None:
        """Count a request that reused a response."""
        self.reused_requests.labels(kind).inc()
        self.reused_tokens.inc(tokens)
        self.cost.inc(cost_usd)

    def count(self, usage: Usage, cost_usd: float | None, *, teacher: str, outcome: str) -> None:
        """Count a request that used the engine, with any outcome."""
        self.teacher_requests.labels(teacher, outcome).inc()
        computed = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
        for kind, tokens in computed.items():
            self.teacher_tokens.labels(teacher, kind).inc(tokens)
        self.teacher_cost.labels(teacher).inc(cost_usd or 0)
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.output_tokens.inc(usage.completion_tokens)
        self.cost.inc(cost_usd or 0)
