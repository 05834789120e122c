from __future__ import annotations

from pathlib import Path

import pytest

from shared.atomic_file import write_atomically


def test_new_and_old_files_get_the_content(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    for text in ("a first text\n", "ü\n"):
        write_atomically(path, text)
        assert path.read_text("utf-8") == text
    assert list(tmp_path.iterdir()) == [tmp_path / "policy.json"]


def test_a_failure_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(path, "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
