"""OpenAI's `response_format`, which constrains an answer to JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.protocol.guidance import MAX_SCHEMA_CHARS, WireModel


def sane_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema if it can be serialized and is not too large. Raises ValueError."""
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        raise ValueError("expected a schema of valid JSON that is not nested too deeply") from None
    if len(text) > MAX_SCHEMA_CHARS:
        raise ValueError(f"the schema has {len(text)} characters; the limit is {MAX_SCHEMA_CHARS}")
    return schema


class NamedSchema(WireModel):
    """A JSON schema with a name. `strict` has no effect, because answers always follow the schema."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    json_schema: Annotated[dict[str, Any], AfterValidator(sane_schema)] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(WireModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("the type json_schema needs a json_schema")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """JSON schema of the answer; None for text."""
        if self.type == "json_object":
            return {"type": "object"}
        return self.json_schema.json_schema if self.type == "json_schema" and self.json_schema else None
