"""Prompts of the benchmarks. Each begins in a new way, so that only the prefixes meant to be shared are in a prefix cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib.resources import files
from itertools import count, cycle

WORDS = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when "
    "we there can an your which their said if do will each about how up out them then she many some so these would other into "
    "has more her two like him see time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know"
)
"""Common words. With the space before it, each is one token of any vocabulary with English text."""


def questions() -> list[str]:
    """Return questions that have long answers and are too short for the teacher's prefix cache on a CPU."""
    text = files("evaluation.bench").joinpath("questions.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line]


def lessons() -> Iterator[str]:
    """Yield short prompts without end, no two the same, that a model continues for hundreds of tokens."""
    return (f"Lesson {number}. {question}\n\n" for number, question in zip(count(1), cycle(questions())))


def plain_words(tokens: int, seed: int) -> str:
    """Return a text of about this many tokens, different for each seed."""
    chosen = random.Random(seed).choices(WORDS.split(), k=tokens)  # noqa: S311 - nothing secret
    return " ".join(chosen)
