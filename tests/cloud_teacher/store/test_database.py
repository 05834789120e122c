from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from cloud_teacher.store.database import connect
from cloud_teacher.store.tables import metadata
from shared.errors import ConfigurationError


def test_the_migrations_make_the_tables_that_the_code_knows(engine: Engine) -> None:
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_replicas_that_start_at_once_upgrade_it_once(store_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: connect(store_url), range(4)))
    with engines[0].begin() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == ["0004"]
    for engine in engines:
        engine.dispose()


def test_a_database_of_a_newer_version_is_left_alone(store_url: str) -> None:
    engine = connect(store_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from-the-future'"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="newer version"):
        connect(store_url)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", "no valid URL"),
        ("mysql://somewhere/x", "unknown database 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
        ("postgresql://me:secret@127.0.0.1:1/x", "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_without_the_password(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        connect(url)
    assert "secret" not in caught.value.message


def test_a_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("something else " * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        connect(f"sqlite:///{file}")
    assert file.read_text().startswith("something else")
