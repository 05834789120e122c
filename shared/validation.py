"""One-line descriptions of pydantic's validation errors. They name fields, and never contain the rejected input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

MAX_PROBLEMS = 3
"""Problems that a description lists; it counts the rest."""


class _Invalid(Protocol):
    """pydantic's ValidationError or FastAPI's RequestValidationError."""

    def errors(self) -> Sequence[Any]: ...


class Problem(NamedTuple):
    """One rejected field."""

    field: str
    """Path of the field, such as `models.0.name`; empty if the whole input was rejected."""
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def first_problem(error: _Invalid) -> Problem:
    return _problem(error.errors()[0])


def describe(error: _Invalid) -> str:
    """Return the problems as `field: message; field: message`."""
    problems = [str(_problem(found)) for found in error.errors()]
    rest = len(problems) - MAX_PROBLEMS
    return "; ".join(problems[:MAX_PROBLEMS]) + (f"; and {rest} more" if rest > 0 else "")


def _problem(found: Mapping[str, Any]) -> Problem:
    return Problem(".".join(map(str, found["loc"])), str(found["msg"]).removeprefix("Value error, "))
