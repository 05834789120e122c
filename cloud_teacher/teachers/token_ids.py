"""Base of the teachers that take token ids: `Teacher.encode`, and all of `Reviewer` except `score`."""

from __future__ import annotations

from collections.abc import Sequence

from cloud_teacher.model_files.chat_format import HfTokenizer, chat_format
from cloud_teacher.teachers.base import Prompt
from shared.protocol.guidance import Message


class TokenIdTeacher:
    """Raises ConfigurationError if the tokenizer has no chat template, or no backend of the tokenizers library."""

    def __init__(self, tokenizer: HfTokenizer, end_id: int) -> None:
        self._format = chat_format(tokenizer)
        self._backend = tokenizer.backend_tokenizer
        self.end_id = end_id
        self.fingerprint = self._format.fingerprint

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        ids = self._format.encode(messages)
        return Prompt(messages, answer, conversation=ids, answer=self.encode_answer(answer))

    def encode_answer(self, text: str) -> list[int]:
        return self._format.encode_plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text
