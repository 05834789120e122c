"""Resources of an idle service, and their growth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from evaluation.figures import NotMeasured
from evaluation.servers.machine import PROC, resident_bytes

WORK = {"gkt_cloud_requests_running", "gkt_edge_requests_running", "gkt_edge_sequences"}
"""Gauges that are 0 in an idle service."""
TASKS = {"gkt_cloud_tasks", "gkt_edge_tasks", "gkt_wan_tasks"}


@dataclass(frozen=True)
class ResourceUsage:
    """Resources of one process."""

    rss_bytes: int
    handles: int
    threads: int
    tasks: int
    work: float = 0
    """Running requests and sequences."""


GROWTH_LIMITS = ResourceUsage(
    rss_bytes=48_000_000,
    handles=36,  # the edge keeps up to 32 connections to its cloud for a minute
    threads=40,  # thread pools do not shrink
    tasks=2,
)


def read_usage(pid: int, metrics: str, proc: Path = PROC) -> ResourceUsage:
    """Raise NotMeasured if the process does not run here, or its metrics have no count of tasks."""
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    tasks = [int(sample.value) for sample in samples if sample.name in TASKS]
    if not tasks:
        raise NotMeasured("the metrics do not count the tasks of the event loop")
    try:
        handles, threads = (len(list((proc / str(pid) / name).iterdir())) for name in ("fd", "task"))
    except OSError as error:
        raise NotMeasured(f"cannot read the resources of process {pid}: {error}") from error
    work = sum(sample.value for sample in samples if sample.name in WORK)
    return ResourceUsage(resident_bytes(pid, proc), handles, threads, tasks[0], work)


def growth(before: ResourceUsage, after: ResourceUsage, limits: ResourceUsage = GROWTH_LIMITS) -> list[str]:
    """Return a sentence for each resource that has grown by more than its limit."""
    found = [f"{after.work:g} requests or sequences are still running"] if after.work else []
    names = {"bytes of memory": "rss_bytes", "file handles": "handles", "threads": "threads", "tasks": "tasks"}
    for what, name in names.items():
        old, new, limit = (getattr(usage, name) for usage in (before, after, limits))
        if new > old + limit:
            found.append(f"{new:,} {what}, {old:,} before; the limit is {limit:,} more")
    return found
