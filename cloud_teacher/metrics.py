"""What the cloud counts. The engine's own metrics (`vllm:*`) follow it at `/metrics`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.protocol.guidance import Usage

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class CloudMetrics:
    """`running` tells how many requests the engine has, `waiting` how many wait for it."""

    def __init__(self, running: Callable[[], int] = int, waiting: Callable[[], int] = int) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gkt_cloud_requests",
            "Requests by how they ended: a finish reason, the code of an error, or `client_disconnected` where the client left",
            ["outcome"],
            registry=self.registry,
        )
        self.prompt_tokens = Counter(
            "gkt_cloud_prompt_tokens", "Prompt tokens of admitted requests", registry=self.registry
        )
        self.cached_tokens = Counter(
            "gkt_cloud_cached_tokens", "Prompt tokens found in the prefix cache", registry=self.registry
        )
        self.generation_tokens = Counter("gkt_cloud_output_tokens", "The teacher's tokens", registry=self.registry)
        self.cost = Counter("gkt_cloud_cost_usd", "Cost by the operator's prices", registry=self.registry)
        self.reused_requests = Counter(
            "gkt_cloud_reused_requests",
            "Requests that were told what another had computed: one that ran (`coalesced`), or one before (`cached`)",
            ["kind"],
            registry=self.registry,
        )
        self.reused_tokens = Counter("gkt_cloud_reused_tokens", "The teacher's tokens in those", registry=self.registry)
        self.teacher_requests = Counter(
            "gkt_cloud_teacher_requests",
            "Requests that a teacher was asked, by how they ended; `gkt_cloud_teacher_failovers` has those it handed on",
            ["teacher", "outcome"],
            registry=self.registry,
        )
        self.teacher_tokens = Counter(
            "gkt_cloud_teacher_tokens",
            "Tokens by teacher: of the prompt, those of it that were cached, and of the answer",
            ["teacher", "kind"],
            registry=self.registry,
        )
        self.teacher_cost = Counter(
            "gkt_cloud_teacher_cost_usd", "Cost by teacher, by its prices", ["teacher"], registry=self.registry
        )
        self.failovers = Counter(
            "gkt_cloud_teacher_failovers",
            "Requests that another was asked, because this teacher failed before its first word, by the error's code",
            ["teacher", "code"],
            registry=self.registry,
        )
        self.up = Gauge(
            "gkt_cloud_teacher_up", "Whether a teacher can be asked now", ["teacher"], registry=self.registry
        )
        self.first_token = Histogram(
            "gkt_cloud_time_to_first_token_seconds",
            "From the request's arrival to the first guidance",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.inter_token = Histogram(
            "gkt_cloud_inter_token_latency_seconds",
            "Between two events of guidance",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "gkt_cloud_request_duration_seconds",
            "From the request's arrival to its end",
            buckets=SECONDS,
            registry=self.registry,
        )
        Gauge("gkt_cloud_requests_running", "Requests that run", registry=self.registry).set_function(running)
        Gauge("gkt_cloud_requests_waiting", "Requests in the queue", registry=self.registry).set_function(waiting)

    def count_reused(self, how: str, tokens: int, cost_usd: float) -> None:
        """A request that has ended, and needed no engine."""
        self.reused_requests.labels(how).inc()
        self.reused_tokens.inc(tokens)
        self.cost.inc(cost_usd)

    def count(self, usage: Usage, cost_usd: float | None, *, teacher: str, outcome: str) -> None:
        """The tokens of a request that has ended, however it did."""
        self.teacher_requests.labels(teacher, outcome).inc()
        computed = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
        for kind, tokens in computed.items():
            self.teacher_tokens.labels(teacher, kind).inc(tokens)
        self.teacher_cost.labels(teacher).inc(cost_usd or 0)
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.generation_tokens.inc(usage.completion_tokens)
        self.cost.inc(cost_usd or 0)
