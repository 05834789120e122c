"""`gkt prompts` and `gkt policies`, run as an operator does."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gkt.__main__ import app
from shared.errors import ConfigurationError

TEMPLATE = "---\nsummary: Terse.\n---\n{{ question }}\n\nAnswer in one line.\n"


@pytest.fixture(autouse=True)
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    monkeypatch.setenv("GKT_CLOUD_STORE_URL", url)
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


def output(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_template_from_its_first_version_to_a_rollback(tmp_path: Path) -> None:
    file = tmp_path / "terse.md"
    file.write_text(TEMPLATE)
    assert output("prompts", "push", "terse", str(file), "-m", "first", "--label", "production").startswith("terse@1#")
    file.write_text(TEMPLATE.replace("one line", "two lines"))
    assert output("prompts", "push", "terse", str(file), "-m", "longer", "--author", "ann").startswith("terse@2#")
    changed = output("prompts", "diff", "terse@1")
    assert "-Answer in one line." in changed
    assert "+Answer in two lines." in changed
    assert output("prompts", "label", "terse@2", "production", "-m", "better") == "terse: production 1 -> 2\n"
    assert "two lines" in output("prompts", "show", "terse")
    assert output("prompts", "rollback", "terse", "-m", "worse") == "terse: production 2 -> 1\n"
    assert "one line" in output("prompts", "show", "terse")
    history = output("prompts", "history", "terse")
    assert [reason in history for reason in ("first", "better", "worse")] == [True] * 3
    listed = output("prompts", "list", "terse")
    assert "production" in listed
    assert "ann" in listed
    assert "answer" in output("prompts", "list"), "packaged templates are listed too"


def test_policies_are_exported_reviewed_and_imported(tmp_path: Path) -> None:
    policy = tmp_path / "maths.json"
    policy.write_text('{"mode": "review"}')
    output("policies", "push", "maths", str(policy), "--label", "production")
    folder = tmp_path / "exported"
    assert output("policies", "export", str(folder)) == f"1 files in {folder}\n"
    assert output("policies", "import", str(folder)) == "", "nothing has changed"
    exported = folder / "maths.json"
    exported.write_text(exported.read_text().replace("review", "fixed"))
    assert output("policies", "import", str(folder), "--label", "candidate", "-m", "try").startswith("maths@2#")
    assert '"mode": "fixed"' in output("policies", "show", "maths@candidate")
    assert '"mode": "review"' in output("policies", "show", "maths")


def test_files_are_imported_together_or_not_at_all(tmp_path: Path) -> None:
    good, bad = tmp_path / "aa.md", tmp_path / "zz.md"
    good.write_text("\ufeff" + TEMPLATE)
    bad.write_text("no template")
    result = run("prompts", "import", str(tmp_path))
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.message.startswith("zz.md: content: ")
    assert "aa " not in output("prompts", "list")
    bad.unlink()
    assert output("prompts", "import", str(tmp_path), "-m", "[/b] markup").startswith("aa@1#")
    assert "[/b] markup" in output("prompts", "list", "aa")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prompts", "show", "nothing"), "template 'nothing' not found; available: answer"),
        (("prompts", "show", "answer@7"), "template answer has no version or label '7'"),
        (("prompts", "label", "answer@1", "latest"), "`latest` moves by itself"),
        (("prompts", "rollback", "answer"), "the label production was never moved"),
        (("prompts", "push", "terse", "nowhere.md"), "nowhere.md cannot be read"),
        (("policies", "import", "."), "has no files NAME.json"),
    ],
)
def test_an_error_says_what_is_wrong(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert message in result.exception.message
