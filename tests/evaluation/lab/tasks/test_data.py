"""Dataset files are recognized by their digest, and errors name their bad lines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.lab import tasks
from evaluation.lab.errors import BadData
from evaluation.lab.tasks import data
from evaluation.lab.tasks.data import Dataset, LineRange, find_data_file, halves, known_files, load


def line(number: int, **more: Any) -> str:
    return json.dumps({"question": f"What is {number} + 0?", "answer": f"Easy.\n#### {number}", **more})


def written(folder: Path, *lines: str) -> Path:
    file = folder / "own.jsonl"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def gsm8k(file: Path, lines: str | None = None, **options: Any) -> Dataset:
    return load(
        tasks.load("gsm8k"), file, LineRange.parse(lines) if lines else LineRange(), allow_unknown=True, **options
    )


def test_lines_are_counted_from_one_and_name_their_questions(tmp_path: Path) -> None:
    file = written(tmp_path, *map(line, range(1, 8)))

    all_of_it = gsm8k(file)
    some = gsm8k(file, "3-6")

    assert [question.item.target for question in some.questions] == ["3", "4", "5", "6"]
    assert some.questions == all_of_it.questions[2:6], "a question has the same id wherever the run begins"
    assert some.questions[0].id.startswith("3-")
    assert gsm8k(file, "3-6", limit=2).questions == some.questions[:2]
    assert len({question.id for question in all_of_it.questions}) == 7


def test_an_array_is_as_good_as_lines(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text("[" + ",\n".join(map(line, range(3))) + "]")

    assert [question.item.target for question in gsm8k(file, "2-3").questions] == ["1", "2"]


@pytest.mark.parametrize("text", ["", "5", "0-3", "3-2", "a-b", "1-2-3", "-1", "1-", "١-٢٣"])
def test_what_are_no_lines(text: str) -> None:
    with pytest.raises(BadData, match="501-1000"):
        LineRange.parse(text)


def test_more_lines_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="has 2 lines, but lines 1-3 were requested"):
        gsm8k(written(tmp_path, line(1), line(2)), "1-3")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "Expecting"),
        ("[1]", "not a JSON object"),
        ("", "Expecting value"),
        ('{"question": "What?"}', "answer: Field required"),
        ('{"question": 3, "answer": "#### 3"}', "question: Input should be a valid string"),
        ('{"question": "What?", "answer": "three"}', "there is no number after ####"),
        ('{"question": "What?", "answer": "#### three"}', "there is no number after ####"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, reason: str) -> None:
    file = written(tmp_path, line(1), bad, line(3))

    with pytest.raises(BadData) as raised:
        gsm8k(file)

    assert raised.value.message.startswith(f"{file}, line 2: ")
    assert reason in raised.value.message


def test_a_line_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_bytes(line(1).encode() + b'\n{"question": "\xff"}\n')

    with pytest.raises(BadData, match="line 2"):
        gsm8k(file)


def test_a_file_that_the_lab_does_not_know_is_named_and_may_be_taken_all_the_same(tmp_path: Path) -> None:
    file = written(tmp_path, line(1))

    with pytest.raises(BadData, match=rf"{file} is not a data file that the lab knows.*--allow-unknown-data"):
        load(tasks.load("gsm8k"), file, LineRange())

    assert len(gsm8k(file).questions) == 1
    with pytest.raises(BadData, match="No such file"):
        gsm8k(tmp_path / "absent")


def test_the_manifest_is_whole() -> None:
    files = known_files()

    assert {file.task for file in files.values()} <= set(tasks.names())
    assert all(len(digest) == 64 and file.licence and file.origin for digest, file in files.items())


def test_a_known_file_is_found_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_HOME", str(tmp_path))
    (tmp_path / "data" / "deep").mkdir(parents=True)
    file = written(tmp_path / "data" / "deep", line(1), line(2))
    content = file.read_bytes()
    (tmp_path / "data" / "a.jsonl").write_bytes(content.replace(b"2", b"3"))
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        f"""[[file]]
        name = "Some sums"
        task = "gsm8k"
        items = 2
        bytes = {len(content)}
        sha256 = "{hashlib.sha256(content).hexdigest()}"
        licence = "MIT"
        origin = "somewhere"
        """
    )
    monkeypatch.setattr(data, "MANIFEST", manifest)
    task = tasks.load("gsm8k")

    assert find_data_file(task) == file
    assert load(task, find_data_file(task), LineRange()).questions, "and is taken without --allow-unknown-data"

    file.unlink()
    with pytest.raises(BadData, match=r"data has no data file of task gsm8k.*Some sums is somewhere \(MIT\)"):
        find_data_file(task)
    with pytest.raises(BadData, match="knows no data file of task mbpp"):
        find_data_file(tasks.load("mbpp"))


def test_the_halves_of_a_file(tmp_path: Path) -> None:
    assert halves(written(tmp_path, *map(line, range(7)))) == (LineRange(1, 3), LineRange(4, 7))
    assert halves(written(tmp_path, *map(line, range(1200)))) == (LineRange(1, 500), LineRange(501, 1000))
    with pytest.raises(BadData, match="too few lines"):
        halves(written(tmp_path, line(1)))
