from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gkt.commands.models import Bars, app, shown_progress


@pytest.fixture
def empty_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GKT_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_list_says_what_is_here_and_under_which_licence(empty_home: Path) -> None:
    broken = empty_home / "models" / "smollm2-135m-instruct" / "model.gguf"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"GGUF")
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "Apache-2.0  1,117 MB  no" in rows["qwen2.5-coder-1.5b-instruct"]
    assert "unverified" in rows["smollm2-135m-instruct"]
    assert str(empty_home) in result.stdout


def test_verify_finds_the_wrong_file(empty_home: Path) -> None:
    assert CliRunner().invoke(app, ["verify"]).exit_code == 0
    broken = empty_home / "models" / "smollm2-135m-instruct" / "model.gguf"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"GGUF")
    result = CliRunner().invoke(app, ["verify"])
    assert result.exit_code == 1
    assert "got 4 bytes" in result.stdout
    assert "expected 98,362,432 bytes" in result.stdout


def test_pull_takes_a_file_of_the_users_own(empty_home: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    result = CliRunner().invoke(app, ["pull", str(own)])
    assert (result.exit_code, result.stdout.strip()) == (0, str(own))


def test_pull_of_an_unknown_name_is_a_sentence_and_no_traceback(empty_home: Path) -> None:
    result = CliRunner().invoke(app, ["pull", "qwen2.5-coder-0.5b"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Similar names: qwen2.5-coder-0.5b-instruct" in result.stderr


def test_bars_show_the_work_and_its_size() -> None:
    out = io.StringIO()
    shown = Bars(Console(file=out, width=120, force_terminal=True))
    shown.start("fetching [odd] name", 2_000_000)
    shown.advance(2_000_000)
    shown.finish()
    shown.start("converting", None)
    shown.finish()
    assert "fetching [odd] name" in out.getvalue()
    assert "2.0/2.0 MB" in out.getvalue()
    assert "converting" in out.getvalue()


def test_where_nobody_watches_the_work_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = shown_progress()
    progress.start("fetching [odd] name", 2_000_000)
    progress.finish()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "fetching [odd] name"
    assert said[1].startswith("fetching [odd] name: finished after ")
