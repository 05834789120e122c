"""`python -m cloud_teacher.echo`: a cloud whose teacher has no model and writes the words of `shared.echo_text`.

It tests services and links with more requests than a model could answer. It has the settings of any cloud (`GKT_CLOUD_...`) and
`GKT_CLOUD_TOKEN_MS`. It rejects some drafts, always the same ones.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from pydantic import Field

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    Scores,
)
from shared.echo_text import next_word, read_mark
from shared.protocol.guidance import Message
from shared.server.run import serve_as

BEGIN = 0x110000
"""The generation prompt's token. All other tokens are code points."""
REJECT_ONE_IN = 3
"""One draft in this many is rejected."""


class EchoSettings(CloudSettings):
    token_ms: float = Field(default=10.0, ge=0, description="time per word, in milliseconds")


class EchoTeacher:
    """The Teacher protocol without a model."""

    model = "echo-teacher"
    fingerprint = "echo"
    end_id = BEGIN + 1

    def __init__(self, settings: EchoSettings) -> None:
        self.max_model_len = settings.max_model_len
        self.registry = CollectorRegistry()
        self._token_s = settings.token_ms / 1000

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        ids = [*self.encode_answer("".join(f"{m.role}: {m.content}\n" for m in messages)), BEGIN]
        return Prompt(messages, answer, conversation=ids, answer=self.encode_answer(answer))

    def reviewer(self) -> Reviewer:
        return self

    def encode_answer(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in ids if token < BEGIN)

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """Do nothing: the teacher ignores schemas, and the edge rejects its text."""

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        mark, answer = read_mark(self.decode(prompt.conversation)), prompt.text
        for number in range(1, params.max_tokens + 1):
            await asyncio.sleep(self._token_s)
            word = next_word(mark, answer, "t")
            if word is None:
                yield OutputChunk(text="", token_ids=[], logprobs=[] if params.logprobs else None, end="stop")
                return
            answer += word
            end: Literal["limit", "string"] | None = "limit" if number == params.max_tokens else None
            if any(stop in word for stop in params.stop):
                end = "string"
            yield OutputChunk(text=word, token_ids=[number], logprobs=[-0.1] if params.logprobs else None, end=end)
            if end:
                return

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        await asyncio.sleep(self._token_s)
        draft = self.decode(ids[start:])
        count = len(ids) - start
        logprobs, ranks = [-0.1] * count, [1] * count
        if zlib.crc32(draft.encode()) % REJECT_ONE_IN == 0:
            rejected = min(draft.find(";") + 1, count - 1)
            logprobs[rejected], ranks[rejected] = -9.0, 9
        return Scores(logprobs=logprobs, ranks=ranks)

    def check_health(self) -> None:
        """Do nothing: there is no engine."""

    async def close(self) -> None:
        """Do nothing: there are no resources."""


def main() -> int:
    settings = EchoSettings()
    return serve_as(
        settings,
        lambda fail: create_app(settings, teacher=EchoTeacher(settings), on_failure=fail),
        tls=settings.tls,
    )


if __name__ == "__main__":
    sys.exit(main())
