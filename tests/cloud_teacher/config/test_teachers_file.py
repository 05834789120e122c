"""The teachers file: its entries, and the errors of invalid ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teachers_file import read_teachers
from shared.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[3] / "deploy/teachers.yaml"
ONE: dict[str, Any] = {"name": "one", "api": "chat", "url": "http://one/v1"}


def written(folder: Path, *entries: Any) -> Path:
    file = folder / "teachers.yaml"
    file.write_text(yaml.safe_dump(list(entries)))
    return file


def test_the_example_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    example = Path(shutil.copy(EXAMPLE, tmp_path))
    (tmp_path / "gateway.key").write_text("gw-1\n")
    entries = read_teachers(example)
    assert [(entry.name, entry.api) for entry in entries] == [
        ("qwen-72b", "completions"), ("gpt", "chat"), ("behind-a-gateway", "chat"), ("here", "vllm"),
    ]  # fmt: skip
    assert [entry.key() for entry in entries] == [None, "sk-1", "gw-1", None]
    assert entries[1].prices is not None
    assert entries[3].prices is None


def test_keys_that_are_missing_are_named_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file = written(tmp_path, {**ONE, "key_env": "OPENAI_API_KEY"})
    with pytest.raises(ConfigurationError, match=r"teacher 1 \(one\): key_env: OPENAI_API_KEY is not set"):
        read_teachers(file)
    (tmp_path / "key").write_text(" ")
    with pytest.raises(ConfigurationError, match=r"key_file: .* is empty"):
        read_teachers(written(tmp_path, {**ONE, "key_file": "key"}))
    with pytest.raises(ConfigurationError, match=r"key_file: .* cannot be read"):
        read_teachers(written(tmp_path, {**ONE, "key_file": "none"}))
    with pytest.raises(ConfigurationError) as raised:
        read_teachers(written(tmp_path, {**ONE, "key": "sk-secret"}))
    assert "key: Extra inputs" in raised.value.message
    assert "sk-secret" not in raised.value.message


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([ONE, {"name": "two", "api": "chat"}], r"teacher 2 \(two\): url: required"),
        ([{**ONE, "continuation": "never"}], r"teacher 1 \(one\): continuation: Input should be"),
        ([{**ONE, "omit": ["stop", "top_p"]}], r"teacher 1 \(one\): omit.0: Input should be"),
        ([{**ONE, "url": "one/v1"}], r"teacher 1 \(one\): url: "),
        ([{"api": "chat", "url": "http://one/v1"}], r"teacher 1: name: Field required"),
        ([ONE, "two"], r"teacher 2: "),
        ([ONE, ONE], r"teacher 1 \(one\): name: another teacher has the same name"),
        ([{**ONE, "fallbacks": ["two"]}], r"teacher 1 \(one\): fallbacks: 'two' is not the name of another teacher"),
        ([{**ONE, "fallbacks": ["one"]}], r"teacher 1 \(one\): fallbacks: 'one' is not the name of another teacher"),
        ([{**ONE, "output_usd_per_million": 1}], r"teacher 1 \(one\): only one of input_usd_per_million and"),
        (
            [{**ONE, "api": "ollama"}],
            r"teacher 1 \(one\): api: .*unknown api 'ollama'; use completions, chat, vllm or ",
        ),
        ([{**ONE, "api": "vllm"}], r"teacher 1 \(one\): url: not allowed with api: vllm"),
        (
            [{**ONE, "api": "completions", "extensions": True}],
            r"teacher 1 \(one\): extensions: only allowed with api: chat",
        ),
        ([{**ONE, "key_env": "A", "key_file": "b"}], r"teacher 1 \(one\): key_env and key_file"),
        ([{"name": "a", "api": "vllm"}, {"name": "b", "api": "vllm"}], "only one teacher of a service may use it"),
        ([], "expected a list of teachers"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(entries: list[Any], message: str, tmp_path: Path) -> None:
    file = written(tmp_path, *entries)
    with pytest.raises(ConfigurationError, match=message) as raised:
        create_app(CloudSettings(teachers_file=file))
    assert str(file) in raised.value.message


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    file = tmp_path / "teachers.yaml"
    file.write_text("- name: [")
    with pytest.raises(ConfigurationError, match="invalid YAML"):
        read_teachers(file)
    with pytest.raises(ConfigurationError, match="set only one of them"):
        CloudSettings(teachers_file=file, upstream_url="http://one/v1")
