"""The machine that is measured on, and what a process on it uses."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

from evaluation.figures import NotMeasured

PROC = Path("/proc")


def describe(proc: Path = PROC) -> str:
    """Return one line with the number of cores and the model of the CPU."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", (proc / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{usable_cores()} cores, {name}"


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores(seconds: float = 2.0) -> float:
    """Return how many cores are busy while this process sleeps, which is what would disturb a measurement."""
    before = _cpu_ticks()
    time.sleep(seconds)
    after = _cpu_ticks()
    total = sum(after) - sum(before)
    idle = sum(after[3:5]) - sum(before[3:5])
    return usable_cores() * (1 - idle / total) if total else 0.0


def _cpu_ticks() -> list[int]:
    """Return the ticks of all cores together: user, nice, system, idle, I/O wait, and more."""
    try:
        return [int(ticks) for ticks in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError) as error:
        raise NotMeasured(f"cannot read how busy this machine is: {error}") from error


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, all threads together. Raise NotMeasured if it does not run here."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int, proc: Path = PROC, *, peak: bool = False) -> int:
    """Return the resident size of a process, or its peak since `reset_peak`. Raise NotMeasured if it does not run here."""
    field = "VmHWM" if peak else "VmRSS"
    match = re.search(rf"^{field}:\s+(\d+) kB$", _read(pid, "status", proc), re.MULTILINE)
    if match is None:
        raise NotMeasured(f"process {pid} has no resident size")
    return int(match[1]) * 1024


def reset_peak(pid: int) -> None:
    """Set the peak resident size of a process to the current size. Raise NotMeasured."""
    try:
        (PROC / str(pid) / "clear_refs").write_text("5")
    except OSError as error:
        raise NotMeasured(f"cannot reset the peak size of process {pid}: {error}") from error


def _read(pid: int, name: str, proc: Path = PROC) -> str:
    try:
        return (proc / str(pid) / name).read_text()
    except OSError as error:
        raise NotMeasured(f"cannot read the {name} of process {pid}: {error}") from error
