"""Metrics of the edge."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.protocol.gkt import GktReport, Source

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class EdgeMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gkt_edge_requests", "Requests by mode and outcome", ["mode", "outcome"], registry=self.registry
        )
        self.fallbacks = Counter(
            "gkt_edge_fallbacks",
            "Answers that continued without (more) guidance, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "gkt_edge_output_tokens",
            "Output tokens by the model that wrote them",
            ["model_role"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "gkt_edge_time_to_first_token_seconds",
            "Seconds from the request to the first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "gkt_edge_request_duration_seconds",
            "Seconds from the request to its end",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.running = Gauge("gkt_edge_requests_running", "Answers that are being written", registry=self.registry)

    def observe(self, mode: str, outcome: str, report: GktReport, seconds: float) -> None:
        """Record a request that has ended."""
        self.requests.labels(mode, outcome).inc()
        if report.fallback:
            self.fallbacks.labels(report.fallback).inc()
        self.duration.observe(seconds)
        sides = {Source.TEACHER: report.teacher, Source.STUDENT: report.student}
        for source, side in sides.items():
            self.tokens.labels(source).inc(side.completion_tokens if side else 0)
        firsts = [side.first_token_ms for side in sides.values() if side and side.first_token_ms is not None]
        if firsts:
            self.first_token.observe(min(firsts) / 1000)
