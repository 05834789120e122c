"""An edge whose student has no model: it says at once what `shared.echo_text` has it say. `python -m edge_student.echo`.

For trying services and links with more requests than a model could answer. Set up as any edge (`GKT_EDGE_...`), and with
`GKT_EDGE_TOKEN_MS`. It is not sure of every other line, and agrees with all that the teacher writes.
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

SURE, UNSURE = -0.01, -3.0


class EchoSettings(EdgeSettings):
    token_ms: float = Field(default=5.0, ge=0, description="milliseconds that the student takes for a word")


class EchoStudent:
    """The Student protocol without a model. Tokens of prompts are characters, those of answers words."""

    model = "echo-student"

    def __init__(self, settings: EchoSettings) -> None:
        self.context_tokens = settings.context_tokens
        self.registry = CollectorRegistry()
        self.token_s = settings.token_ms / 1000
        self.open_sequences: set[EchoSequence] = set()
        self._room = settings.max_sequences + settings.max_queue
        gauge = Gauge("gkt_edge_sequences", "Sequences under way or waiting", registry=self.registry)
        gauge.set_function(lambda: len(self.open_sequences))

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenize("".join(f"{m.role}: {m.content}\n" for m in messages))

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def piece(self, token: int) -> bytes:
        return chr(token).encode()

    def check_tokens(self, ids: Sequence[int], *, param: str = "prompt") -> None:
        if any(not 0 <= token < 0x110000 for token in ids):
            raise InvalidRequest(f"{param}: holds what is no token", param=param)

    def structure(self, json_schema: dict[str, Any], *, param: str = "response_format") -> Structure:
        raise InvalidRequest(f"{param}: a student without a model holds to no structure", param=param)

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
            raise PromptTooLong(f"{len(prompt)} tokens, {self.context_tokens} fit", param="messages")
        if len(self.open_sequences) >= self._room:
            raise Overloaded(f"{self._room} sequences are open, the most there may", retry_after_s=1)
        return EchoSequence(self, "".join(map(chr, prompt)), text)

    def failure(self) -> str | None:
        return None

    async def close(self) -> None:
        """It holds nothing."""


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
        self.scores.append(Score(text.encode(), SURE, 0, 0.0))

    def prefill_ahead(self, text: str) -> None:
        """There is nothing to prepare."""

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
        logprob = UNSURE if begins_odd_line else SURE
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
