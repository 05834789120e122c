"""The conversation as OpenAI's clients send it."""

from __future__ import annotations

from typing import Literal

from shared.wire import Message, Text, WireModel


class TextPart(WireModel):
    type: Literal["text"]
    text: Text


class ChatMessage(WireModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def plain(self) -> Message:
        """The message as both models take it: one string, `developer` as `system` (OpenAI's newer name for it)."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=text)
