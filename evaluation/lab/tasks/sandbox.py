"""Code that a model wrote, run against its tests in a process of its own with limits.

What holds it: `python -I` in an empty folder that goes away, a session of its own that is killed when its time is over, limits
on processor time, memory, sizes of files, open files and processes, no core dumps, no network where the system allows to take
it away, another user where this one is root, and a hook that refuses what no solution needs (writing outside its folder,
processes, sockets, signals, foreign libraries). That holds mistakes. It does not hold an attacker: who expects one runs the
lab in a container.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

RUNNER = Path(__file__).with_name("sandbox_child.py")
TIMEOUT_S = 10
MEMORY_BYTES = 512 * 1024 * 1024


def passes(code: str, *, setup: str = "", tests: Sequence[str], timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the code, and then each test, runs to its end without an error, within `timeout_s`.

    Raises OSError where no process can be started.
    """
    word = secrets.token_hex(16)  # only our own runner knows it: code that ends the process early passes nothing
    job = json.dumps(
        {
            "word": word,
            "parts": [code, setup, *tests],
            "cpu_s": max(1, round(timeout_s)),
            "memory_bytes": MEMORY_BYTES,
        }
    )
    with tempfile.TemporaryDirectory(prefix="gkt-code-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(RUNNER)],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(job.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
    return said == word.encode()
