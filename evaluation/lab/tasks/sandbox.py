"""Run code that a model wrote against its tests, in a separate process with limits.

The process is `python -I` in an empty temporary folder, in a session that is killed when its time is over. It has limits on
processor time, memory, file sizes, open files and processes, writes no core dumps, has no network if the system allows to take
it away, and is another user if this one is root. A hook refuses what no solution needs: writing outside the folder, processes,
sockets, signals, foreign libraries. This contains mistakes. It does not contain an attacker: if you expect one, run the lab in
a container.
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
    """True if the code, and then each test, runs to its end without an error, within `timeout_s`.

    Raises OSError if no process can be started.
    """
    # Only the child's runner has this word: code that ends the process early passes no test.
    word = secrets.token_hex(16)
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
            output, _ = process.communicate(job.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            output = b""
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
    return output == word.encode()
