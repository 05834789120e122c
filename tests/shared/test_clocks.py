"""Code that waits or measures reads a clock that does not jump."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ("shared", "cloud_teacher", "edge_student", "wan")
WALL = {("time", "time"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}
TOLD = {
    "cloud_teacher/accounting/usage.py",  # when a row of the ledger began
    "cloud_teacher/admission/admission.py",  # which day's budget it is
    "cloud_teacher/service.py",  # `created` of models
    "cloud_teacher/admission/rate_limits.py",  # `limits` counts its windows by it; a jump makes one window longer or shorter
    "edge_student/app.py",  # `created` of models
    "edge_student/api/chat.py",  # `created` of answers
    "edge_student/api/completions.py",
    "shared/prompting/chat_format.py",  # today's date, for templates that ask
}
"""Modules that print the wall clock or count days, and do not wait by it."""


def test_services_read_the_wall_clock_only_to_tell_it() -> None:
    readers = set()
    for house in SERVICES:
        for path in (ROOT / house).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in WALL:
                        readers.add(str(path.relative_to(ROOT)))

    assert readers == TOLD
