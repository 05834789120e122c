from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from gkt.local.child_process import Child

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
import asyncio, os, sys
from pathlib import Path
from gkt.local.child_process import Child

async def main():
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    child = await Child.start("side", command, env=os.environ, log=Path(sys.argv[1]))
    print(child.pid, flush=True)
    await child.ended()

asyncio.run(main())
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


async def said(log: Path, lines: int) -> list[str]:
    while len(found := log.read_text().splitlines()) < lines:
        await asyncio.sleep(0.02)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    while lives(pid):
        await asyncio.sleep(0.02)


async def test_its_log_has_what_it_says_and_a_group_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "side.log"
    program = (
        "import os, sys; print(os.getpgid(0) == os.getpid(), os.getsid(0) == os.getsid(os.getppid()));"
        "sys.exit('\\x1b[31mlast words')"
    )
    child = await Child.start("side", python(program), env=os.environ, log=log)
    assert await child.ended() == 1
    assert sorted(child.last_words().splitlines()) == ["True True", "last words"]
    assert child.last_words(1) == child.last_words().splitlines()[-1]
    await child.stop(1)


async def test_one_that_will_not_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    child = await Child.start("side", python(STUBBORN), env=os.environ, log=tmp_path / "log")
    await said(child.log, 1)
    await child.stop(0.1)
    assert await child.ended() == -signal.SIGKILL


async def test_nothing_of_its_group_is_left(tmp_path: Path) -> None:
    child = await Child.start("side", python(FAMILY), env=os.environ, log=tmp_path / "log")
    grandchild = int(next(line for line in await said(child.log, 2) if line != "deaf"))
    assert lives(grandchild)
    await child.stop(30)
    assert await child.ended() == -signal.SIGTERM
    await gone(grandchild)


async def test_it_ends_when_we_are_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *python(PARENT), str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert lives(child)
    parent.kill()
    await parent.wait()
    await gone(child)
