"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gkt.settings_docs import page

ROOT = Path(__file__).parents[1]
RECIPES = re.findall(r"^### (Add .*)\n((?:(?!^##).*\n)*)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "gkt"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    return folder


def run(checkout: Path, *arguments: str) -> str:
    """Run a module of Python in the copy, and return what it prints."""
    command = [sys.executable, "-m", *arguments]
    environment = {"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "HOME": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(file: Path, code: str) -> None:
    """Write a new file, or add the fields of a block's class to the class of that name in a file that is there."""
    if not file.exists():
        file.write_text(code)
        return
    (block,) = ast.parse(code).body
    assert isinstance(block, ast.ClassDef)
    source = file.read_text()
    (old,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == block.name)
    after = max(node.end_lineno or 0 for node in old.body if isinstance(node, ast.AnnAssign))
    fields = code.splitlines()[block.body[1].lineno - 1 :]  # the first line of the body is `...`
    lines = source.splitlines()
    file.write_text("\n".join([*lines[:after], *fields, *lines[after:]]) + "\n")


@pytest.mark.parametrize(("title", "text"), RECIPES, ids=[title for title, _ in RECIPES])
@pytest.mark.system
def test_a_recipe_is_one_file_and_one_test_which_passes(title: str, text: str, checkout: Path) -> None:
    blocks = BLOCK.findall(text)
    files, tests = ([path for path, _ in blocks if path.startswith("tests/") == of_tests] for of_tests in (False, True))
    assert (len(files), len(tests)) == (1, 1), title

    for path, code in blocks:
        write(checkout / path, code)

    run(checkout, "ruff", "check", "--no-cache", *files, *tests)
    run(checkout, "ruff", "format", "--no-cache", "--check", *files, *tests)
    run(checkout, "pytest", "-q", "-p", "no:cacheprovider", *tests)


@pytest.mark.system
def test_a_setting_that_was_added_is_in_the_reference(checkout: Path) -> None:
    (text,) = (text for title, text in RECIPES if title == "Add a setting")
    path, code = BLOCK.findall(text)[0]
    write(checkout / path, code)
    before = page().splitlines()
    (row,) = (line for line in run(checkout, "gkt.settings_docs").splitlines() if line not in before)
    assert row.startswith("| `GKT_EDGE_IDLE_UNLOAD_S` | `0.0` | Unload the model")
