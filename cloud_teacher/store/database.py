"""Connects to the database of a URL, and upgrades its schema."""

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
"""Time that SQLite waits for another process's write lock."""
UPGRADE_LOCK = 0x676B74
"""PostgreSQL's advisory lock under which one of many replicas upgrades the schema."""


def now_ms() -> int:
    """Return the current time in the unit of the tables."""
    return time.time_ns() // 1_000_000


def connect(url: str) -> Engine:
    """Return an engine for `sqlite:///FILE` or `postgresql://...`, and create or upgrade its tables.

    Raises ConfigurationError.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "GKT_CLOUD_STORE_URL is no valid URL; use sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("GKT_CLOUD_STORE_URL: SQLite needs a file; use sqlite:///FILE")
            engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
            _set_up_sqlite(engine)
        case "postgresql":
            # The database may restart, so each connection is tested before it is used.
            engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        case other:
            raise ConfigurationError(f"GKT_CLOUD_STORE_URL: unknown database {other!r}; use sqlite or postgresql")
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
    """Configure the file for several processes that write, and for commits that survive a power cut.

    Transactions that write take the lock when they begin. A transaction that reads first fails at once, without waiting, if
    another one has written meanwhile.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        cursor = connection.cursor()
        _enable_wal(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("gkt_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _enable_wal(cursor: sqlite3.Cursor) -> None:
    """Switch the file to a write-ahead log. SQLite fails at once if several processes switch a new file, so retry."""
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
    """Return the same engine for transactions that only read, which need no lock."""
    return engine.execution_options(gkt_reads=True)


def _upgrade(engine: Engine) -> None:
    """Upgrade the schema to this version. If several replicas start at once, one upgrades and the others wait."""
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
            raise ConfigurationError(
                f"GKT_CLOUD_STORE_URL: created by a newer version, or not by gkt: {error}"
            ) from error


def cause(error: SQLAlchemyError) -> str:
    """Return the database's message without the statement and the URL, which may hold a password."""
    return str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0]
