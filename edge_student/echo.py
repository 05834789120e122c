"""An edge without a model: its student writes the text of `shared.echo_text`. `python -m edge_student.echo`.

It serves tests of services and links with more requests than a model could answer. Its settings are those of any edge
(`GKT_EDGE_...`) and `GKT_EDGE_TOKEN_MS`. The student is unsure of every other line, and agrees with every word of the teacher.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from pydantic import Field

from edge_student.app import create_app
from edge_student.settings import EdgeSettings
from edge_student.student import Alternative, Score, ScoresOf, Structure, StudentSampling, TokenOutput
from shared.echo_text import next_word, read_mark
from shared.errors import InvalidRequest, Overloaded, PromptTooLong
from shared.protocol.guidance import Message
from shared.server.run import serve_as

CONFIDENT_LOGPROB, UNSURE_LOGPROB = -0.01, -3.0


class EchoSettings(EdgeSettings):
    token_ms: float = Field(default=5.0, ge=0, description="milliseconds per word of the student")


class EchoStudent:
    """The Student protocol without a model. A token is a character in prompts and a word in answers."""

    model = "echo-student"

    def __init__(self, settings: EchoSettings) -> None:
        self.context_tokens = settings.context_tokens
        self.registry = CollectorRegistry()
        self.token_s = settings.token_ms / 1000
        self.open_sequences: set[EchoSequence] = set()
        self._room = settings.max_sequences + settings.max_queue
        gauge = Gauge("gkt_edge_sequences", "Sequences running or waiting", registry=self.registry)
        gauge.set_function(lambda: len(self.open_sequences))

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenize("".join(f"{m.role}: {m.content}\n" for m in messages))

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def piece(self, token: int) -> bytes:
        return chr(token).encode()

    def check_tokens(self, ids: Sequence[int], *, param: str = "prompt") -> None:
        if any(not 0 <= token < 0x110000 for token in ids):
            raise InvalidRequest(f"{param}: token ids must be from 0 to 0x10ffff", param=param)

    def structure(self, json_schema: dict[str, Any], *, param: str = "response_format") -> Structure:
        raise InvalidRequest(f"{param}: a student without a model does not support structured answers", param=param)

    def text_or_calls(self, call_schema: dict[str, Any], *, parallel: bool) -> Structure:
        return self.structure(call_schema, param="tools")

    def open(
        self,
        prompt: Sequence[int],
        *,
        text: str = "",
        deferred: bool = False,
        scores_of: ScoresOf | None = None,
        top: int = 0,
        cache_salt: str | None = None,
    ) -> EchoSequence:
        if len(prompt) >= self.context_tokens:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; the context has {self.context_tokens}, one of them for the answer",
                param="messages",
            )
        if len(self.open_sequences) >= self._room:
            raise Overloaded(
                f"the queue is full: {self._room} answers are running or waiting, the most that are allowed",
                retry_after_s=1,
            )
        return EchoSequence(self, "".join(map(chr, prompt)), text)

    def failure(self) -> str | None:
        return None

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


class EchoSequence:
    cached_tokens = 0

    def __init__(self, student: EchoStudent, prompt: str, answer: str) -> None:
        self.scores: list[Score] = []
        self._student = student
        self._mark = read_mark(prompt)
        self._answer = answer
        student.open_sequences.add(self)

    def extend(self, text: str) -> None:
        self._answer += text
        self.scores.append(Score(text.encode(), CONFIDENT_LOGPROB, 0, 0.0))

    def prefill_ahead(self, text: str) -> None:
        """Do nothing: there is nothing to prefill."""

    async def generate(self, sampling: StudentSampling) -> AsyncGenerator[TokenOutput, None]:
        try:
            if sampling.max_tokens < 1:
                yield TokenOutput("", end="length")
                return
            for number in range(1, sampling.max_tokens + 1):
                await asyncio.sleep(self._student.token_s)
                word = self._word(sampling, last=number == sampling.max_tokens)
                yield word
                if word.end:
                    return
        finally:
            self.close()

    def close(self) -> None:
        self._student.open_sequences.discard(self)

    def _word(self, sampling: StudentSampling, *, last: bool) -> TokenOutput:
        text = next_word(self._mark, self._answer, "s")
        if text is None:
            return TokenOutput("", end="stop")
        begins_odd_line = self._answer.endswith("\n") and self._answer.count("\n") % 2 == 1
        logprob = UNSURE_LOGPROB if begins_odd_line else CONFIDENT_LOGPROB
        self._answer += text
        token = text.encode()
        top = sampling.top_logprobs
        return TokenOutput(
            text,
            token,
            len(text),
            None if top is None else logprob,
            (Alternative(token, logprob),) * (top or 0),
            end="length" if last else None,
        )


def main() -> int:
    settings = EchoSettings()
    return serve_as(
        settings,
        lambda fail: create_app(settings, student=EchoStudent(settings), on_failure=fail),
    )


if __name__ == "__main__":
    sys.exit(main())
