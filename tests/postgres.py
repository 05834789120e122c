"""A PostgreSQL of the tests' own, from the distribution's package, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

OWNER = "gkt"


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs. If it is missing, the test fails with the command that installs it."""
    places = [*Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), *Path("/usr/pgsql").glob(f"*/bin/{name}")]
    found = str(max(places)) if places else shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed. Install it with: apt-get install postgresql")
    return found


class Server:
    """A running server that listens only on a socket in its folder."""

    def __init__(self, folder: Path, who: dict[str, Any]) -> None:
        self._folder, self._who = folder, who
        self.start()

    def start(self) -> None:
        options = ["-k", str(self._folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", str(self._folder / "data"), *options],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                **self._who,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._url).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once, and close all connections."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def new_database(self) -> str:
        """Return the URL of an empty schema, which serves as a database of its own and is made at once."""
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self._url}&options=-csearch_path%3D{name}"

    @property
    def _url(self) -> str:
        return f"postgresql://{OWNER}@/postgres?host={self._folder}"


@contextmanager
def running() -> Iterator[Server]:
    """Start a new server. PostgreSQL refuses to run as root, so root starts it as nobody."""
    who: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="gkt-pg-"))
    try:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        subprocess.run(
            [program("initdb"), "-D", str(folder / "data"), "-U", OWNER, "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **who,
        )
        server = Server(folder, who)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
