"""What an answer must look like, as OpenAI's clients say it: `response_format`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.protocol.guidance import MAX_SCHEMA_CHARS, WireModel


def sane_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema that can be handed on as text. Raises ValueError where it cannot, or is too large."""
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        raise ValueError("the schema is not valid JSON, or nested too deeply") from None
    if len(text) > MAX_SCHEMA_CHARS:
        raise ValueError(f"the schema has {len(text)} characters; {MAX_SCHEMA_CHARS} is the most")
    return schema


class NamedSchema(WireModel):
    """`strict` is taken and makes no difference: answers are always held to the schema."""

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
        """The JSON schema of the answer, or None for text."""
        if self.type == "json_object":
            return {"type": "object"}
        return self.json_schema.json_schema if self.type == "json_schema" and self.json_schema else None
