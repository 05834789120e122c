"""Pages that are made from the code are what the code makes."""

from __future__ import annotations

import re
from pathlib import Path

from gkt.settings_docs import page

ROOT = Path(__file__).parents[1]


def test_the_configuration_page_is_made_from_the_settings() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == page(), "python -m gkt.settings_docs > docs/configuration.md"


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_named_file_of_the_architecture_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for path in re.findall(r"`((?:shared|cloud_teacher|edge_student|evaluation|gkt|prompts|tests|wan)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
