"""What a service holds while it has nothing to do, and whether that has grown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from evaluation.figures import NotMeasured
from evaluation.servers.machine import PROC, resident_bytes

WORK = ("gkt_cloud_requests_running", "gkt_edge_requests_running", "gkt_edge_sequences")
"""Gauges that are 0 where there is nothing to do."""
TASKS = "gkt_tasks"


@dataclass(frozen=True)
class Idle:
    """Of one process."""

    rss_bytes: int
    handles: int
    threads: int
    tasks: int
    work: float
    """Requests and sequences under way."""


@dataclass(frozen=True)
class Bounds:
    """How much more each may be than at first."""

    rss_bytes: int = 48_000_000
    handles: int = 36
    """The edge keeps up to 32 connections to its cloud for a minute."""
    threads: int = 40
    """A pool of threads, once they were needed, stays."""
    tasks: int = 2


def held(pid: int, metrics: str, proc: Path = PROC) -> Idle:
    """Raises NotMeasured where there is no such process here, or it tells no tasks."""
    values = dict(_gauges(metrics))
    if TASKS not in values:
        raise NotMeasured(f"the metrics have no {TASKS}")
    try:
        handles = len(list((proc / str(pid) / "fd").iterdir()))
        threads = len(list((proc / str(pid) / "task").iterdir()))
    except OSError as error:
        raise NotMeasured(f"what process {pid} holds cannot be read: {error}") from error
    work = sum(values.get(name, 0.0) for name in WORK)
    return Idle(resident_bytes(pid, proc), handles, threads, int(values[TASKS]), work)


def grown(before: Idle, after: Idle, bounds: Bounds) -> list[str]:
    """Sentences about what has not returned."""
    found: list[str] = []
    if after.work:
        found.append(f"{after.work:g} requests or sequences are under way")
    pairs = {
        "bytes of memory": (before.rss_bytes, after.rss_bytes, bounds.rss_bytes),
        "file handles": (before.handles, after.handles, bounds.handles),
        "threads": (before.threads, after.threads, bounds.threads),
        "tasks": (before.tasks, after.tasks, bounds.tasks),
    }
    for what, (then, now, more) in pairs.items():
        if now > then + more:
            found.append(f"{now:,} {what}, {then:,} before; {more:,} more are allowed")
    return found


def _gauges(metrics: str) -> Iterable[tuple[str, float]]:
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in {*WORK, TASKS}:
                yield sample.name, sample.value
