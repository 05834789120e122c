"""Tools in OpenAI's format: their description, the choice among them, and the calls of an assistant."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.protocol.guidance import MAX_SCHEMA_CHARS, Text, WireModel
from shared.protocol.response_format import sane_schema

MAX_TOOLS = 128
"""Upper bound of the tools in a request, as OpenAI has it."""

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(WireModel):
    name: FunctionName
    description: Text | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(sane_schema)] | None = None
    strict: bool | None = None


class Tool(WireModel):
    type: Literal["function"]
    function: Function

    def described(self) -> str:
        """Return the tool as JSON for the model, with the spaces of chat templates."""
        function = self.function.model_dump(include={"name", "description", "parameters"}, exclude_none=True)
        return json.dumps({"type": self.type, "function": function}, ensure_ascii=False)


def _sane_tools(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two functions have the name {twice[0]}")
    size = sum(len(tool.described()) for tool in tools)
    if size > MAX_SCHEMA_CHARS:
        raise ValueError(f"the tools have {size} characters together; the limit is {MAX_SCHEMA_CHARS}")
    return tools


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS), AfterValidator(_sane_tools)]


class NamedFunction(WireModel):
    name: str


class ToolChoice(WireModel):
    """Choice among tools: the model's choice (`auto`), none, any one (`required`), or the function with a name."""

    type: Literal["none", "auto", "required", "function"]
    function: NamedFunction | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_its_name(self) -> Self:
        if self.type == "function" and self.function is None:
            raise ValueError("the type function needs a function with a name")
        return self


class CalledFunction(WireModel):
    name: Text
    arguments: Text
    """JSON as the model wrote it, incomplete if the answer was cut off."""


class ToolCall(WireModel):
    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction
