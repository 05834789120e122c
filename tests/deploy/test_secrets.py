"""`deploy/secrets.sh`: random keys in a file that only its owner reads."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_compose_file import KEYS, ROOT

pytestmark = pytest.mark.system


def make(path: Path) -> dict[str, str]:
    done = subprocess.run(
        ["sh", str(ROOT / "deploy/secrets.sh"), str(path)], capture_output=True, text=True, check=True
    )
    lines = path.read_text().splitlines()
    for line in lines:
        name, _, value = line.partition("=")
        if name in KEYS and value:
            assert value not in done.stdout + done.stderr, "a key is never printed"
    return dict(line.split("=", 1) for line in lines)


def test_keys_are_random_and_for_the_owner_alone(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert set(first) == set(KEYS)
    assert len({*first.values(), *second.values()}) == 2 * len(KEYS)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in first.values())
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_what_is_there_stays_and_only_what_is_missing_is_made(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("GKT_TEACHER=mine\nGKT_EDGE_A_KEY=chosen\nGKT_EDGE_B_KEY=\n")
    path.chmod(0o644)
    made = make(path)
    assert (made["GKT_TEACHER"], made["GKT_EDGE_A_KEY"]) == ("mine", "chosen")
    assert len(made["GKT_EDGE_B_KEY"]) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    make(path)
    assert path.read_text() == before
