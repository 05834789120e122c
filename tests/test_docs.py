"""The documentation agrees with the code, and its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gkt.settings_docs import page

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)")


def _build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", str(source), str(to)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _anchors(document: Path) -> set[str]:
    """Return the anchors that a code forge gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_configuration_page_is_made_from_the_settings() -> None:
    file = "docs/reference/configuration.md"
    assert (ROOT / file).read_text() == page(), f"python -m gkt.settings_docs > {file}"


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text()):
        file = document.parent / target if target else document
        assert file.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in _anchors(file), f"{document.name} links to {target}#{anchor}"


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_named_in_a_page_exists(document: Path) -> None:
    for path in re.findall(
        r"`((?:cloud_teacher|deploy|edge_student|evaluation|gkt|shared|tests|wan)/[\w./-]*)`", document.read_text()
    ):
        assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = _build(ROOT / "docs", tmp_path)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "searchindex.js").exists()


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(ROOT / "docs/conf.py", source)
    (source / "index.md").write_text("# A page\n\n[a link](#nowhere)\n")
    built = _build(source, tmp_path / "site")
    assert built.returncode != 0
    assert "nowhere" in built.stderr
