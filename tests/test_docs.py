"""The documentation agrees with the code, and its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import subprocess
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from cloud_teacher.config.settings import CloudSettings
from edge_student.settings import EdgeSettings
from evaluation.lab import tasks
from evaluation.lab.arms import parse_all
from gkt.__main__ import app
from gkt.settings_docs import page
from tests.edge_student.scripted_edge import edge

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES = [*GUIDES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
SETTINGS = {
    f"{settings.model_config['env_prefix']}{name.upper()}"
    for settings in (CloudSettings, EdgeSettings)
    for name in settings.model_fields
}
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


def _options(words: list[str]) -> set[str]:
    """Options of the command of `gkt` that `words` call."""
    command: Any = typer.main.get_command(app)
    context = TyperGroup.context_class(command)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        _, command, words = command.resolve_command(context, words)
    return {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}


def _shell_lines(document: Path) -> list[str]:
    """The lines of a page's code blocks, joined where they end with a backslash, without comments."""
    text = document.read_text()
    blocks = re.findall(r"^```(?:console|sh|bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", "".join(blocks)).splitlines()
    return [re.sub(r"\s#.*", "", line).strip().removeprefix("$ ") for line in lines]


def _commands(document: Path) -> list[list[str]]:
    """Each call of `gkt` in a page's code blocks, as words behind `gkt`."""
    calls = []
    for line in _shell_lines(document):
        words = line.split()
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words and words[0] == "gkt" and "…" not in words[:3]:
            calls.append(words[1:])
    return calls


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_has_its_options(document: Path) -> None:
    for words in _commands(document):
        options = _options(words)
        for word in words:
            name = word.partition("=")[0]
            assert not name.startswith("--") or name in options, f"gkt {' '.join(words)}"


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_arm_of_a_page_can_be_run(document: Path) -> None:
    variables = dict(re.findall(r"^ {4}(\w+)=(\S+)$", document.read_text(), re.MULTILINE))
    for words in _commands(document):
        named = [words[i + 1] for i, word in enumerate(words) if word == "--arm"]
        if named:
            parse_all([variables[arm[1:]] if arm.startswith("$") else arm for arm in named])


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_target_of_make_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = document.read_text()
    named = re.findall(r"`make ([a-z-]+)", text) + [
        x.split()[1] for x in _shell_lines(document) if x.startswith("make ")
    ]
    assert set(named) <= targets


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_and_metric_of_a_page_exists(document: Path) -> None:
    code = _code()
    for name in re.findall(
        r"\b(?:GKT_(?:CLOUD|EDGE)_|gkt_(?:cloud|edge|wan)_)\w+\w\b(?!…|\w*\.\.\.)", document.read_text()
    ):
        known = name in SETTINGS or name in code or name.removesuffix("_total") in code
        assert known, f"{document.name} names {name}"


@cache
def _code() -> frozenset[str]:
    """Each name that looks like a variable or a metric in the code and in deployed files."""
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    texts = [
        (ROOT / file).read_text()
        for file in files
        if file.endswith((".py", ".yml", ".yaml", ".sh")) and "tests/" not in file
    ]
    return frozenset(re.findall(r"\b(?:GKT_|gkt_)\w+", "\n".join(texts)))


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_says_first_who_it_is_for(document: Path) -> None:
    paragraphs = [block for block in document.read_text().split("\n\n") if not block.startswith("#")]
    assert re.match(r"(This page is|These pages are) for \w", paragraphs[0]), document.name


def _snippet(page: str, first_line: str) -> str:
    """The Python block of a page that begins with this line."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return next(block for block in blocks if block.startswith(first_line))


def test_the_task_of_the_evaluation_page_scores_answers(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(_snippet("docs/how-to/evaluation.md", "from evaluation.lab"))
    task = tasks.load(f"{file}:capitals")
    item = task.item({"country": "Chad", "capital": "N'Djamena"})
    assert task.verdict(task.extract("N'Djamena."), item) == (True, 1.0)
    assert task.verdict(task.extract("Niamey"), item) == (False, 0.5)


async def test_the_link_of_the_wan_page_runs() -> None:
    code = compile(_snippet("docs/how-to/wan.md", "from wan"), "wan.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}
    await types.FunctionType(code, names)()
    assert names["link"].state.live == 0


async def test_the_client_of_the_clients_page_prints_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    snippet = _snippet("docs/how-to/clients.md", "from openai")
    async with edge() as running:
        code = compile(snippet.replace("http://127.0.0.1:8081", running.url), "clients.md", "exec")
        await asyncio.to_thread(types.FunctionType(code, {}))
    assert capsys.readouterr().out == "There x are 18.\n4 tokens\n"
