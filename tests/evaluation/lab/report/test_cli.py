"""`gkt eval report` and `gkt eval compare`, called as a user calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from evaluation.lab.analysis.price_table import load_prices, prices_of
from evaluation.lab.cli import app
from evaluation.lab.errors import BadFolder
from evaluation.lab.report.formatting import markdown_text
from evaluation.lab.results.folder import ROWS, rows_in
from evaluation.lab.results.rows import Row, SideTokens
from shared.errors import ConfigurationError
from shared.protocol.gkt import Segment, Source
from tests.evaluation.lab import made_up
from tests.evaluation.lab.made_up import write_rows

EVIL = "<script>alert(1)</script>"
NAMES = {
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "n",
    "teacher_token_share",
    "cost_share",
    "gap_recovered",
    "p50_s",
    "p95_s",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_rows(tmp_path / "run", made_up.rows(30))
    return tmp_path / "run"


def _called(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "140", "TERM": "dumb"})


class _Page(HTMLParser):
    """Reports problems that a browser would find: tags that are never closed, and anything that it would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object"} or any(
            name in {"src", "href"} or name.startswith("on") for name, _ in attrs
        ):
            self.loads.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_holds_every_part(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    result = _called("report", run, "--html", file)

    assert (result.exit_code, result.exception) == (0, None)
    text = file.read_text("utf-8")
    page = _Page(text)
    assert (page.open, page.loads) == ([], [])
    assert not re.search(r"@import|url\((?!#)", text)
    for part in (
        "Accuracy against cost",
        "guidance length",
        "Latency",
        "Who wrote what",
        "Fixed:",
        "Broken:",
        "McNemar",
    ):
        assert part in text
    assert text.count("<h2>") == len(made_up.TASKS)
    assert "<details>" in text


def test_what_others_wrote_cannot_speak_html_or_markdown(tmp_path: Path) -> None:
    def row(arm: str, correct: bool) -> Row:
        return Row(
            task=f"t{EVIL}",
            question_id=f"q{EVIL}",
            arm=arm,
            correct=correct,
            extracted=EVIL,
            target=EVIL,
            question=EVIL,
            output=EVIL * 2,
            segments=[Segment(source=Source.TEACHER, chars=len(EVIL), tokens=3)],
            fallback=EVIL,
            error=EVIL,
            teacher=SideTokens(output=5),
            total_s=1.0,
        )

    write_rows(tmp_path, [row("off", False), row(f"x|{EVIL}", True), row("fixed:40", True), row("teacher", True)])
    html, md = tmp_path / "r.html", tmp_path / "r.md"
    result = _called("report", tmp_path, "--html", html, "--markdown", md)

    assert (result.exit_code, result.exception) == (0, None)
    for text in (html.read_text("utf-8"), md.read_text("utf-8")):
        assert "<script" not in text
        assert "alert" in text
    assert (_Page(html.read_text("utf-8")).open, _Page(html.read_text("utf-8")).loads) == ([], [])
    lines = [line for line in md.read_text("utf-8").splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:6]}) == 1


def test_markdown_names_are_plain() -> None:
    assert markdown_text("a|b <i>*c*\nd&e") == "a\\|b &lt;i\\>\\*c\\* d&amp;e"


def test_the_data_have_the_names_that_were_asked_for(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    assert _called("report", run, "--json", file).exit_code == 0
    told = json.loads(file.read_text("utf-8"))

    assert set(told) == set(made_up.TASKS)
    assert list(told["gsm8k"]) == [arm.name for arm in made_up.ARMS]
    for arms in told.values():
        for values in arms.values():
            assert set(values) >= NAMES
    off, teacher = told["gsm8k"]["off"], told["gsm8k"]["teacher"]
    assert (off["teacher_token_share"], off["cost_share"], off["gap_recovered"]) == (0, 0, 0)
    assert (teacher["teacher_token_share"], teacher["cost_share"], teacher["gap_recovered"]) == (1, 1, 1)
    assert off["accuracy_low"] < off["accuracy"] < off["accuracy_high"]
    assert told["gsm8k"]["fixed:80"]["n"] == 29


def test_without_references_shares_are_null_and_every_form_says_so(tmp_path: Path) -> None:
    write_rows(tmp_path, [row for row in made_up.rows(10) if row.arm not in {"off", "teacher"}])
    files = [tmp_path / name for name in ("r.html", "r.md", "r.json")]
    result = _called("report", tmp_path, "--html", files[0], "--markdown", files[1], "--json", files[2])

    assert result.exit_code == 0
    told = json.loads(files[2].read_text("utf-8"))
    assert {told["gsm8k"]["fixed:40"][name] for name in ("teacher_token_share", "cost_share", "gap_recovered")} == {
        None
    }
    assert "no arm" in files[0].read_text("utf-8")
    assert "US dollars for 1,000 questions" in files[0].read_text("utf-8")
    assert "no arm" in files[1].read_text("utf-8")


def test_a_run_without_rows_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / ROWS).touch()
    assert _called("report", tmp_path, "--html", tmp_path / "r.html").exit_code == 0
    assert "no rows yet" in (tmp_path / "r.html").read_text("utf-8")


def test_of_a_row_in_two_folders_the_later_counts(tmp_path: Path) -> None:
    for name, correct in (("one", False), ("two", True)):
        write_rows(tmp_path / name, [Row(task="t", question_id="1", arm="off", correct=correct)])
    _called(
        "report", tmp_path / "one", tmp_path / "two", "--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md"
    )
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["t"]["off"]["accuracy"] == 1
    assert "1 rows are in more than one" in (tmp_path / "r.md").read_text("utf-8")


def test_the_arms_whose_questions_are_shown_can_be_chosen(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    assert _called("report", run, "--html", file, "--between", "fixed:10", "fixed:80").exit_code == 0
    text = file.read_text("utf-8")
    assert "fixed:10 against fixed:80, question by question" in text
    assert "flatters" not in text

    result = _called("report", run, "--html", file, "--between", "off", "nobody")
    assert isinstance(result.exception, ConfigurationError)
    assert "'nobody'" in str(result.exception)


@pytest.mark.system
def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['scipy'] = None; sys.argv = ['gkt', 'eval', 'report']; from gkt.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "gkt: gkt eval needs scipy: pip install 'gkt[eval]'"


def test_there_must_be_something_to_write(run: Path, tmp_path: Path) -> None:
    assert _called("report", run).exit_code == 2
    assert isinstance(_called("report", run, "--json", tmp_path / "no" / "r.json").exception, ConfigurationError)


def test_compare_says_what_the_data_can_tell(run: Path) -> None:
    result = _called("compare", run, "off", "teacher", "--task", "gsm8k")
    assert (result.exit_code, result.exception) == (0, None)
    for part in (
        "gsm8k",
        "accuracy",
        "McNemar's exact p ",
        "n = 30",
        "questions needed",
        "fixed",
        "gsm8k/00",
        "cost of 1,000",
    ):
        assert part in result.output
    assert "svamp" not in result.output
    assert "cannot tell" not in result.output


def test_arms_of_two_runs_can_be_compared(tmp_path: Path) -> None:
    rows = list(made_up.rows(30))
    for name, arms in (("one", {"off"}), ("two", {"teacher"})):
        write_rows(tmp_path / name, [row for row in rows if row.arm in arms])
    result = _called("compare", tmp_path / "one", tmp_path / "two", "off", "teacher", "--task", "gsm8k")
    assert (result.exit_code, result.exception) == (0, None)
    assert "n = 30" in result.output


def test_compare_warns_where_they_cannot(run: Path) -> None:
    result = _called("compare", run, "review:0.1", "teacher")
    assert result.exit_code == 0
    assert result.output.count("McNemar") == len(made_up.TASKS)
    assert re.search(r"cannot tell|cannot be told", result.output)


def test_compare_names_the_arms_and_tasks_there_are(run: Path) -> None:
    unknown = _called("compare", run, "off", "fixed:41")
    assert isinstance(unknown.exception, ConfigurationError)
    assert "fixed:40" in str(unknown.exception)
    task = _called("compare", run, "off", "teacher", "--task", "gsm9k")
    assert isinstance(task.exception, ConfigurationError)
    assert "svamp" in str(task.exception)


def test_rows_come_back_and_the_last_of_a_question_counts(tmp_path: Path) -> None:
    first = list(made_up.rows(3))
    write_rows(tmp_path, first)
    write_rows(tmp_path, [first[0].model_copy(update={"output": "again"})])
    back = rows_in(tmp_path)
    assert back[0].output == "again"
    assert [row.model_dump(exclude={"output"}) for row in back] == [row.model_dump(exclude={"output"}) for row in first]


@pytest.mark.parametrize("line", ["{", '{"task": "t"}', "[]", '{"task":"t","question_id":"1","arm":"a","correct":3}'])
def test_a_bad_line_is_named(line: str, tmp_path: Path) -> None:
    write_rows(tmp_path, [Row(task="t", question_id="1", arm="a", correct=True)])
    with (tmp_path / ROWS).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(BadFolder, match=re.escape(f"{tmp_path / ROWS}, line 3: ")):
        rows_in(tmp_path)


def test_a_line_that_a_process_did_not_live_to_end_is_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path, [Row(task="t", question_id="1", arm="a", correct=True)])
    with (tmp_path / ROWS).open("a", encoding="utf-8") as file:
        file.write('{"task": "t", "quest')
    assert [row.question_id for row in rows_in(tmp_path)] == ["1"]


def test_a_folder_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadFolder, match="cannot be read"):
        rows_in(tmp_path)


def test_prices_by_model(tmp_path: Path) -> None:
    own = load_prices()
    assert prices_of(own, "no such model") == prices_of(own, None)
    prices = prices_of(own, None)
    assert prices.cached_input_usd / prices.input_usd == pytest.approx(0.1)
    assert prices.output_usd / prices.input_usd == 4

    file = tmp_path / "prices.toml"
    file.write_text("[default]\ninput_usd = 1\ncached_input_usd = 0\noutput_usd = 2\n[m]\ninput_usd = 9\n", "utf-8")
    with pytest.raises(ConfigurationError, match="cached_input_usd"):
        load_prices(file)
    file.write_text("[m]\ninput_usd = 1\ncached_input_usd = 0\noutput_usd = nan\n", "utf-8")
    with pytest.raises(ConfigurationError, match="output_usd"):
        load_prices(file)
    file.write_text("[m]\ninput_usd = 1\ncached_input_usd = 0\noutput_usd = 2\n", "utf-8")
    with pytest.raises(ConfigurationError, match="default"):
        load_prices(file)
