"""The edge's process ends in good order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import Process

pytestmark = pytest.mark.system

MODEL = "smollm2-135m-instruct"


def test_sigterm_is_an_end_in_good_order(tmp_path: Path) -> None:
    process = Process("edge_student", {"GKT_EDGE_MODEL": MODEL}, tmp_path)
    try:
        process.wait_until_ready()
        assert process.end() == 0
        assert process.orphans() == {}
    finally:
        process.kill()
