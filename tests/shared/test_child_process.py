from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.child_process import ChildProcess, ProcessFailed

pytestmark = pytest.mark.system

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(1000)
"""

FAMILY = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
print(child.pid, flush=True)
time.sleep(1000)
"""

PARENT = """
import os, sys
from pathlib import Path
from shared.child_process import ChildProcess

child = ChildProcess("side", [sys.executable, "-c", "import time; time.sleep(1000)"], env=os.environ, log=Path(sys.argv[1]))
print(child.pid, flush=True)
child.wait()
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def child(program: str, log: Path) -> ChildProcess:
    return ChildProcess("side", python(program), env=os.environ, log=log)


def output(log: Path, lines: int) -> list[str]:
    while len(found := log.read_text().splitlines()) < lines:
        time.sleep(0.02)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pid: int) -> None:
    while lives(pid):
        time.sleep(0.02)


def test_its_log_has_its_output_and_it_leads_a_group(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "side.log"
    program = (
        "import os, sys; print(os.getpgid(0) == os.getpid(), os.getsid(0) == os.getsid(os.getppid()));"
        "sys.exit('last words')"
    )
    side = child(program, log)
    assert side.wait() == 1
    assert sorted(side.log_tail().splitlines()) == ["True True", "last words"]
    assert side.log_tail(1) == side.log_tail().splitlines()[-1]
    assert side.stop(1) == 1


def test_a_child_that_does_not_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    side = child(STUBBORN, tmp_path / "log")
    output(side.log, 1)
    assert side.status is None
    assert side.stop(0.1) == -signal.SIGKILL


def test_nothing_of_its_group_is_left(tmp_path: Path) -> None:
    side = child(FAMILY, tmp_path / "log")
    grandchild = int(next(line for line in output(side.log, 2) if line != "deaf"))
    assert lives(grandchild)
    assert side.stop(30) == -signal.SIGTERM
    wait_for_end(grandchild)


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([*python(PARENT), str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    wait_for_end(pid)


def test_its_port_is_read_once_it_listens(tmp_path: Path) -> None:
    program = "import pathlib, sys, time; pathlib.Path('port').write_text('8080\\n'); time.sleep(1000)"
    side = ChildProcess("side", python(program), env=os.environ, log=tmp_path / "log", cwd=tmp_path)
    try:
        assert side.port(tmp_path / "port", 30) == 8080
        with pytest.raises(ProcessFailed, match=r"the side is not ready after 0\.1 s"):
            side.wait_until(lambda: False, 0.1, what="ready")
    finally:
        side.kill()


def test_a_child_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    side = child("print('out of memory', flush=True); raise SystemExit(3)", tmp_path / "log")
    with pytest.raises(ProcessFailed, match=r"the side ended with status 3\. Its log ends:\nout of memory"):
        side.port(tmp_path / "port", 30)
