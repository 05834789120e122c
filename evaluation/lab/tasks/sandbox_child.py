"""The child process of the sandbox (`python -I`): it limits itself, and then runs the code that it receives.

It writes the secret word if all code ran to its end, and nothing otherwise.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from typing import Any

NOBODY = 65534
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
FILE_BYTES = 1_000_000
OPEN_FILES = 32
REFUSED = (
    "ctypes",
    "os.chflags",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.killpg",
    "os.link",
    "os.posix_spawn",
    "os.setxattr",
    "os.spawn",
    "os.symlink",
    "os.system",
    "os.truncate",
    "pty.spawn",
    "resource.setrlimit",
    "shutil.rmtree",
    "signal.pthread_kill",
    "socket",
    "subprocess.Popen",
    "syslog",
    "webbrowser",
)
"""Refused audit events: full names, or names up to the first dot. https://docs.python.org/3/library/audit_events.html"""
CHANGING = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    job = json.load(sys.stdin)
    output = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    _limit(job["cpu_s"], job["memory_bytes"])
    sys.addaudithook(_hook(os.path.realpath(".")))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for part in job["parts"]:
        exec(compile(part, "answer.py", "exec"), namespace)  # noqa: S102 - this process exists to run it
    os.write(output, job["word"].encode())


def _limit(cpu_s: int, memory_bytes: int) -> None:
    _leave_network()
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 1,
    }
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    if os.geteuid() == 0 and _open_to_nobody():
        # Root has no limit on processes, and may write everywhere.
        os.chown(".", NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _open_to_nobody() -> bool:
    """True if that user can read Python itself; otherwise no `import` would work."""
    os.seteuid(NOBODY)
    try:
        with open(os.__file__, "rb"):  # noqa: PTH123 - importing pathlib would delay each answer
            return True
    except PermissionError:
        return False
    finally:
        os.seteuid(0)


def _leave_network() -> None:
    """Enter a network namespace without an active interface, if the system allows it."""
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is not None and unshare(CLONE_NEWNET) != 0:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)


def _hook(folder: str) -> Any:
    inside = folder + os.sep
    realpath, fspath = os.path.realpath, os.fspath

    def own(path: Any) -> bool:
        return not isinstance(path, int) and realpath(os.fsdecode(fspath(path))).startswith(inside)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writing = (isinstance(mode, str) and any(sign in mode for sign in "wax+")) or (flags or 0) & WRITING
            if writing and not own(path):
                raise PermissionError(f"not allowed in the sandbox: {event}")
        elif event in CHANGING:
            paths = arguments[:2] if event == "os.rename" else arguments[:1]
            if not all(own(path) for path in paths):
                raise PermissionError(f"not allowed in the sandbox: {event}")
        elif event in REFUSED or event.partition(".")[0] in REFUSED:
            raise PermissionError(f"not allowed in the sandbox: {event}")

    return refuse


if __name__ == "__main__":
    main()
