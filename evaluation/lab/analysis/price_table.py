"""Prices of teachers: input, cached input and output tokens."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from shared.errors import ConfigurationError
from shared.prices import Prices
from shared.validation import describe

DEFAULT = "default"

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceEntry(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input_usd: Usd
    cached_input_usd: Usd
    output_usd: Usd

    def prices(self) -> Prices:
        return Prices(self.input_usd, self.cached_input_usd, self.output_usd)


class PriceTable(RootModel[Mapping[str, PriceEntry]]):
    """A file of prices: one table for each model, and `default` for all others."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _has_default(self) -> Self:
        if DEFAULT not in self.root:
            raise ValueError(f"the entry `{DEFAULT}` is missing")
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> Self:

        path = path or Path(__file__).with_name("prices.toml")
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"the prices {path} cannot be read: {error}") from error
        except ValidationError as error:
            raise ConfigurationError(f"the prices {path}: {describe(error)}") from error

    def of(self, model: str | None) -> Prices:
        """Return the prices of a model; the default ones if it has no entry or is None."""
        return self.root.get(model or DEFAULT, self.root[DEFAULT]).prices()

    def flat(self) -> dict[str, float]:
        """Return all prices, each under its model and kind."""
        return {
            f"{model} {kind}": price for model, entry in self.root.items() for kind, price in entry.model_dump().items()
        }
