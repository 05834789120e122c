"""`python -m gkt.settings_docs`: docs/reference/configuration.md, made from the settings themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teacher import TeacherEntry
from edge_student.settings import EdgeSettings

HEAD = """# Configuration

Every setting is an environment variable; `gkt cloud` and `gkt edge` have options for the most used ones, which win.
`GKT_HOME` is where models, logs and data for evaluation are kept (by default your cache folder, `$XDG_CACHE_HOME/gkt`).

This page is made from the settings: `python -m gkt.settings_docs > docs/reference/configuration.md`.
"""


def page() -> str:
    """The whole page, Markdown."""
    return "\n".join([HEAD, *_table("The edge", EdgeSettings), *_table("The cloud", CloudSettings), *_entry()])


def _table(title: str, settings: type[BaseSettings]) -> Iterator[str]:
    prefix = settings.model_config["env_prefix"]
    yield f"## {title}\n"
    yield "| variable | default | |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        default = "" if field.default in {None, PydanticUndefined, ()} else f"`{field.default}`"
        yield f"| `{prefix}{name.upper()}` | {default} | {field.description} |"
    yield ""


def _entry() -> Iterator[str]:
    yield "## A teacher of the cloud\n"
    how_to = "../how-to/operating.md#teachers-elsewhere"
    yield f"An entry of `GKT_CLOUD_TEACHERS_FILE`; [operating.md]({how_to}) has how they are used.\n"
    yield "| key | default | |"
    yield "|---|---|---|"
    for name, field in TeacherEntry.model_fields.items():
        default = "" if field.default in ({}, None, PydanticUndefined, ()) else f"`{field.default}`"
        yield f"| `{name}` | {default} | {field.description} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
