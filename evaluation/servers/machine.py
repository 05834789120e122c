"""The machine that is measured on, and what a process on it takes."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

from evaluation.figures import NotMeasured

PROC = Path("/proc")


def describe(proc: Path = PROC) -> str:
    """One line: cores and the model of the CPU."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", (proc / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{usable_cores()} cores, {name}"


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores(seconds: float = 2.0, proc: Path = PROC) -> float:
    """How many cores are at work, whoever uses them: while we do nothing, what disturbs a measurement."""
    before = _cpu_ticks(proc)
    time.sleep(seconds)
    after = _cpu_ticks(proc)
    total = sum(after) - sum(before)
    idle = sum(after[3:5]) - sum(before[3:5])
    return usable_cores() * (1 - idle / total) if total else 0.0


def _cpu_ticks(proc: Path) -> list[int]:
    """Of all cores together: user, nice, system, idle, waiting for disks, and more."""
    try:
        return [int(ticks) for ticks in (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError) as error:
        raise NotMeasured(f"how busy this machine is cannot be read: {error}") from error


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """Processor time that a process has taken, all its threads. Raises NotMeasured where there is no such process here."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise NotMeasured(f"the processor time of process {pid} cannot be read: {error}") from error
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int, proc: Path = PROC) -> int:
    """The resident size of a process (`VmRSS`). Raises NotMeasured where there is no such process here."""
    try:
        status = (proc / str(pid) / "status").read_text()
    except OSError as error:
        raise NotMeasured(f"the size of process {pid} cannot be read: {error}") from error
    match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if match is None:
        raise NotMeasured(f"process {pid} has no resident size")
    return int(match[1]) * 1024
