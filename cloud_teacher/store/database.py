"""Where the tables live: a connection by URL, and its schema brought up to date."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from shared.errors import ConfigurationError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_S = 10
"""SQLite waits so long for another process that writes."""
UPGRADE_LOCK = 0x676B74
"""PostgreSQL's advisory lock under which one replica of many upgrades."""


def now_ms() -> int:
    """The instant, as the tables have it."""
    return time.time_ns() // 1_000_000


def connect(url: str) -> Engine:
    """An engine for `sqlite:///FILE` or `postgresql://...`, with all tables there. Raises ConfigurationError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("GKT_CLOUD_STORE_URL is no URL; sqlite:///FILE is one") from error
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("GKT_CLOUD_STORE_URL: SQLite needs a file, as in sqlite:///FILE")
            engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
            _set_up_sqlite(engine)
        case "postgresql":
            # The database may be restarted: a connection is tried before it is used.
            engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        case other:
            raise ConfigurationError(f"GKT_CLOUD_STORE_URL: {other} is not known here; sqlite and postgresql are")
    try:
        _upgrade(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        raise ConfigurationError(f"GKT_CLOUD_STORE_URL cannot be used: {cause(error)}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _set_up_sqlite(engine: Engine) -> None:
    """A file that several processes write, and of which a commit outlives a power cut.

    Transactions that write take the lock at their beginning. One that reads first and then finds that another has written
    would fail at once, whatever the time it may wait.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        _keep_a_log(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("gkt_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _keep_a_log(cursor: sqlite3.Cursor) -> None:
    """Have the file's journal be a write-ahead log. Of several who want that of a new file at once, SQLite has some not wait."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: they wait for nobody."""
    return engine.execution_options(gkt_reads=True)


def _upgrade(engine: Engine) -> None:
    """Bring the schema to this version's. Several replicas may start at once: one does it, the others wait."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigurationError(f"GKT_CLOUD_STORE_URL: made by a newer gkt, or not by gkt: {error}") from error


def cause(error: SQLAlchemyError) -> str:
    """What the database said, without the statement and without the URL, which may hold a password."""
    return str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0]
