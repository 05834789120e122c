"""Raw text for the student's benchmarks, which begins as no text before it did: what a cache can share is then known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count, cycle

from evaluation.bench.questions import questions

WORDS = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when "
    "we there can an your which their said if do will each about how up out them then she many some so these would other into "
    "has more her two like him see time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know"
)
"""Common ones: with the space before it each is one token of any vocabulary that knows English."""


def lessons() -> Iterator[str]:
    """Short prompts without end, none twice, which a model goes on from for hundreds of tokens."""
    return (f"Lesson {number}. {question}\n\n" for number, question in zip(count(1), cycle(questions())))


def plain_words(tokens: int, seed: int) -> str:
    """Text of about so many tokens, another one for each seed."""
    chosen = random.Random(seed).choices(WORDS.split(), k=tokens)  # noqa: S311 - nothing secret
    return " ".join(chosen)
