"""The catalogue of models."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.errors import ConfigurationError, UnknownModelName
from shared.model_hub.downloads import Source
from shared.validation import describe

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Role(StrEnum):
    """Use of a model."""

    TEACHER = "teacher"
    STUDENT = "student"


class ModelEntry(BaseModel):
    """A model of the catalogue. `bytes` and `sha256` are those of the GGUF file, from any source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    licence: str = Field(description="SPDX identifier")
    roles: tuple[Role, ...] = Field(min_length=1)
    bytes: int = Field(gt=0)
    sha256: Sha256
    sources: tuple[Source, ...] = Field(min_length=1)


class Catalog(BaseModel):
    """All named models, in the order of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Mapping[str, ModelEntry]

    @field_validator("models", mode="before")
    @classmethod
    def _named(cls, models: object) -> object:
        """Use the key of each table as the model's name."""
        if not isinstance(models, dict):
            return models
        return {name: {**entry, "name": name} if isinstance(entry, dict) else entry for name, entry in models.items()}

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a catalogue, by default the one in this package. Raises ConfigurationError."""
        path = path or Path(__file__).with_name("catalog.toml")
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"the catalogue {path} cannot be read: {error}") from error
        except ValidationError as error:
            raise ConfigurationError(f"the catalogue {path}: {describe(error)}") from error

    def get(self, name: str) -> ModelEntry:
        """Return a model by its name. Raises UnknownModelName, which lists similar names."""
        try:
            return self.models[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.models, n=3, cutoff=0.4) or list(self.models)
            raise UnknownModelName(
                f"model {name!r} not found. Similar names: {', '.join(near)}. "
                "A path to a GGUF file and owner/repo:file.gguf on the model hub are accepted too"
            ) from None
