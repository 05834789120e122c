"""The questions of the benchmarks: each has a long answer, and a prompt too short for the teacher's prefix cache on a CPU."""

from __future__ import annotations

from importlib.resources import files


def questions() -> list[str]:
    text = files("evaluation.bench").joinpath("questions.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line]
