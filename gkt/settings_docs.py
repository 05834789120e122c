"""`python -m gkt.settings_docs`: generate docs/reference/configuration.md from the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teacher import TeacherEntry
from edge_student.settings import EdgeSettings

HEAD = """# Settings

This page is for people who configure an edge or a cloud: it lists every setting of both.

Every setting is an environment variable. `gkt cloud` and `gkt edge` have options for the most used ones; an option overrides its
variable. `GKT_HOME` is the folder for models, logs and evaluation data; if unset, `gkt` in your cache folder
(`$XDG_CACHE_HOME/gkt`).

This page is generated: `python -m gkt.settings_docs > docs/reference/configuration.md`.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join([HEAD, *_table("The edge", EdgeSettings), *_table("The cloud", CloudSettings), *_entry()])


def _table(title: str, settings: type[BaseSettings]) -> Iterator[str]:
    prefix = settings.model_config["env_prefix"]
    yield f"## {title}\n"
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        default = "" if field.default in {None, PydanticUndefined, ()} else f"`{_shown(field.default)}`"
        yield f"| `{prefix}{name.upper()}` | {default} | {field.description} |"
    yield ""


def _shown(default: Any) -> str:
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _entry() -> Iterator[str]:
    yield "## A teacher of the cloud\n"
    how_to = "[how to use several teachers](../how-to/teachers.md#several-teachers)"
    yield f"The keys of an entry of `GKT_CLOUD_TEACHERS_FILE`; see {how_to}.\n"
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for name, field in TeacherEntry.model_fields.items():
        default = "" if field.default in ({}, None, PydanticUndefined, ()) else f"`{field.default}`"
        yield f"| `{name}` | {default} | {field.description} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
