"""Prices of teachers, by model: input, cached input and output tokens."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from shared.errors import ConfigurationError
from shared.prices import Prices
from shared.validation import describe

DEFAULT = "default"
PriceTable = Mapping[str, Prices]
"""Prices by model, and `default` for all other models."""


def _with_default(table: PriceTable) -> PriceTable:
    if DEFAULT not in table:
        raise ValueError(f"the entry `{DEFAULT}` is missing")
    return table


_TABLE: TypeAdapter[PriceTable] = TypeAdapter(Annotated[Mapping[str, Prices], AfterValidator(_with_default)])


def load_prices(path: Path | None = None) -> PriceTable:
    """Read a table; without a path, the one that comes with gkt. Raises ConfigurationError."""
    path = path or Path(__file__).with_name("prices.toml")
    try:
        return _TABLE.validate_python(tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"the prices {path} cannot be read: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"the prices {path}: {describe(error)}") from error


def prices_of(table: PriceTable, model: str | None) -> Prices:
    """Return the prices of a model; the default ones if it has no entry or is None."""
    return table.get(model or DEFAULT, table[DEFAULT])
