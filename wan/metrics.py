"""Prometheus metrics, read from the links' own counters, so that no byte is counted twice."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wan.link.faults import FaultKind
from wan.network import Wan


class _Links(Collector):
    def __init__(self, wan: Wan) -> None:
        self._wan = wan

    def collect(self) -> Iterator[Metric]:
        carried = CounterMetricFamily("gkt_wan_bytes", "Bytes that arrived", labels=["link", "direction"])
        opened = CounterMetricFamily("gkt_wan_connections", "Connections since the start", labels=["link"])
        unreachable = CounterMetricFamily(
            "gkt_wan_unreachable", "Connections whose target could not be reached", labels=["link"]
        )
        faults = CounterMetricFamily("gkt_wan_faults", "Faults that started", labels=["link", "kind"])
        live = GaugeMetricFamily("gkt_wan_live_connections", "Open connections", labels=["link"])
        under_way = GaugeMetricFamily("gkt_wan_under_way_bytes", "Bytes in transit", labels=["link"])
        for name, link in self._wan.links.items():
            carried.add_metric([name, "up"], link.up.bytes)
            carried.add_metric([name, "down"], link.down.bytes)
            opened.add_metric([name], link.opened)
            unreachable.add_metric([name], link.unreachable)
            live.add_metric([name], link.live)
            under_way.add_metric([name], link.under_way)
            for kind in FaultKind:
                faults.add_metric([name, kind], link.faults[kind])
        yield from (carried, opened, unreachable, faults, live, under_way)


def registry_of(wan: Wan) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Links(wan))
    return registry
