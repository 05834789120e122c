"""Code that does what it must not do is ended, and has not passed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from evaluation.lab.tasks.sandbox import passes

pytestmark = pytest.mark.system

GOOD = "def double(n):\n    return 2 * n"
TESTS = ["assert double(2) == 4"]


def test_good_code_passes_and_wrong_code_does_not() -> None:
    assert passes(GOOD, tests=TESTS)
    assert passes(f"import math, re, collections\nprint('x' * 100000)\n{GOOD}", tests=TESTS)
    assert passes(GOOD, setup="two = 2", tests=["assert double(two) == 4"])
    assert not passes(GOOD, tests=[*TESTS, "assert double(1) == 3"])
    assert not passes("def double(n):", tests=TESTS)


@pytest.mark.parametrize("early", ["import sys; sys.exit(0)", "import os; os._exit(0)", "print('0' * 32)\nexit()"])
def test_ending_early_is_not_passing(early: str) -> None:
    assert not passes(f"{GOOD}\n{early}", tests=["assert False"])


def test_an_endless_loop_is_ended() -> None:
    start = time.monotonic()
    assert not passes("while True:\n    pass", tests=TESTS, timeout_s=1)
    assert not passes("import time; time.sleep(60)", tests=TESTS, timeout_s=1)
    assert time.monotonic() - start < 20


def test_memory_has_a_limit() -> None:
    assert not passes(f"{GOOD}\nkept = bytearray(2_000_000_000)", tests=TESTS)


@pytest.mark.parametrize(
    "starting",
    [
        "import os; os.fork()",
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print); p.start()",
    ],
)
def test_no_process_is_started(starting: str) -> None:
    assert not passes(f"{starting}\n{GOOD}", tests=TESTS)


def test_files_stay_in_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    kept = tmp_path / "kept"
    kept.write_text("precious")
    kept.chmod(0o666)

    assert passes(f"open('note', 'w').write('x')\nassert open('note').read() == 'x'\n{GOOD}", tests=TESTS)
    assert not passes(f"open({str(kept)!r}, 'w').write('x')\n{GOOD}", tests=TESTS)
    assert not passes(f"import os; os.remove({str(kept)!r})\n{GOOD}", tests=TESTS)
    assert not passes(f"import os; os.rename({str(kept)!r}, 'mine')\n{GOOD}", tests=TESTS)
    assert not passes(f"import shutil; shutil.rmtree({str(tmp_path)!r})\n{GOOD}", tests=TESTS)
    assert not passes(f"open('big', 'wb').write(bytes(5_000_000))\n{GOOD}", tests=TESTS)
    assert kept.read_text() == "precious"


def test_there_is_no_network() -> None:
    assert not passes(f"import socket; socket.create_connection(('127.0.0.1', 9))\n{GOOD}", tests=TESTS)
    assert not passes(f"import socket; socket.socket()\n{GOOD}", tests=TESTS)
