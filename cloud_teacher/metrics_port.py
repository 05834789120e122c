"""`/metrics` on a port of its own, for a cloud whose API only its edges may reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class _All(Collector):
    """Every registry there is when somebody asks: the engine's comes when the teacher is loaded."""

    def __init__(self, registries: Callable[[], list[CollectorRegistry]]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries():
            yield from registry.collect()


@contextmanager
def metrics_port(host: str, port: int | None, registries: Callable[[], list[CollectorRegistry]]) -> Iterator[None]:
    """Serve metrics there and nothing else, in a thread of its own; without a port do nothing. Raises OSError."""
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_All(registries))
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
