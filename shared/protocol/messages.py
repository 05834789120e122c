"""Messages of a conversation in OpenAI's format."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from shared.protocol.guidance import Message, Text, WireModel
from shared.protocol.tools import ToolCall


class TextPart(WireModel):
    type: Literal["text"]
    text: Text


class ChatMessage(WireModel):
    """A message. An assistant's may have tool calls, with or without text; one with the role `tool` is a call's result."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = Field(default=None, validate_default=True)
    content: Text | list[TextPart] | None = Field(default=None, validate_default=True)

    @field_validator("tool_call_id")
    @classmethod
    def _result_of_a_call(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("role") == "tool":
            raise ValueError("a message with the role tool needs the tool_call_id of its call")
        return value

    @field_validator("content")
    @classmethod
    def _says_something(cls, value: Text | list[TextPart] | None, info: ValidationInfo) -> Text | list[TextPart] | None:
        calls = info.data.get("role") == "assistant" and info.data.get("tool_calls")
        if value is None and "role" in info.data and not calls:
            raise ValueError("expected content; only an assistant's message with tool_calls may leave it out")
        return value

    @property
    def text(self) -> str:
        match self.content:
            case None:
                return ""
            case str(text):
                return text
            case parts:
                return "".join(part.text for part in parts)

    def plain(self) -> Message:
        """Return the message with one string and one of three roles. `developer` is OpenAI's newer name for `system`.

        Tool calls are left out: `edge_student.tools.tool_use` renders them.
        """
        match self.role:
            case "assistant" | "user" as role:
                return Message(role=role, content=self.text)
            case "tool":
                return Message(role="user", content=self.text)
            case _:
                return Message(role="system", content=self.text)
