"""The cloud's database, for the commands that use it."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine


def store_url() -> str:
    """Return GKT_CLOUD_STORE_URL. Raises ConfigurationError if it is not set or SQLAlchemy is missing."""
    from cloud_teacher.config.settings import CloudSettings
    from shared.server.settings import read_settings

    settings = read_settings(CloudSettings)
    if settings.store_url is None:
        raise ConfigurationError("GKT_CLOUD_STORE_URL is not set; expected a database such as sqlite:////path/to/file")
    if importlib.util.find_spec("sqlalchemy") is None:
        raise ConfigurationError("SQLAlchemy is not installed. Install it with: pip install 'gkt[fleet]'")
    return settings.store_url.get_secret_value()


@contextmanager
def opened() -> Generator[Engine]:
    """Open the database of GKT_CLOUD_STORE_URL and migrate its tables. Raises ConfigurationError."""
    url = store_url()
    from cloud_teacher.store.database import connect

    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()
