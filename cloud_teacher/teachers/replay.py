"""A teacher that remembers: what it has written and scored is told again from a file, for evaluation.

Sweeps ask the same thing many times. A fixed length of 20 tokens is the beginning of one of 40, which is the beginning of the
teacher's whole answer; a policy with another threshold takes the same first steps. Tokens, their text and probabilities are as
they were the first time, cached prompt tokens too; times are not the teacher's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    Scores,
    Teacher,
)
from shared.errors import ConfigurationError
from shared.protocol.guidance import Message, Usage

logger = logging.getLogger("gkt.cloud")


class ReplayTeacher:
    """Another teacher behind a file of what it has said. Answers that are drawn without a seed are not remembered."""

    def __init__(self, teacher: Teacher, path: Path) -> None:
        """Raises ConfigurationError where the file cannot be used."""
        self._teacher = teacher
        self.model = teacher.model
        self.max_model_len = teacher.max_model_len
        self.fingerprint = teacher.fingerprint
        self.registry: CollectorRegistry = teacher.registry
        try:
            # Made in the thread that loads the teacher, used by the event loop's.
            self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # It is a memory: what a crash takes from it is computed again.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = OFF")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS said (key BLOB PRIMARY KEY, what TEXT NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise ConfigurationError(f"replay_file: {path} cannot be used: {error}") from error

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        return self._teacher.encode(messages, answer)

    def reviewer(self) -> Reviewer:
        self._teacher.reviewer()
        return self

    @property
    def end_id(self) -> int:
        return self._teacher.reviewer().end_id

    def encode_answer(self, text: str) -> list[int]:
        return self._teacher.reviewer().encode_answer(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._teacher.reviewer().decode(ids)

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        self._teacher.check_schema(json_schema)

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        drawn = params.temperature > 0 and params.seed is None
        key = self._key("stream", _asked(prompt), params.model_copy(update={"max_tokens": 1}).model_dump())
        pieces = [] if drawn else [_piece(said) for said in self._said(key) or []]
        if not prompt.ids and not _suffices(pieces, params.max_tokens):
            pieces = []  # a chat API does not go on as if it had never stopped: it is asked for all of it again
        known = list(pieces)
        text, written, count = prompt.text, list(prompt.answer), 0
        for place, piece in enumerate(pieces, 1):
            text += piece.text
            written += piece.token_ids
            count += piece.count
            if count >= params.max_tokens and piece.end is None:
                behind = pieces[place] if place < len(pieces) else piece
                usage = piece.usage if behind.count else behind.usage  # what a server said of an answer that ended here
                piece = replace(piece, end="limit", usage=usage)
            yield piece
            if piece.end:
                return
        try:
            # Where the memory ends the teacher goes on.
            left = params.model_copy(update={"max_tokens": params.max_tokens - count})
            begun = prompt.with_answer(text, written) if pieces else prompt
            async with aclosing(self._teacher.stream(request_id, begun, left, hints)) as more:
                async for piece in more:
                    if pieces:  # its own words were in the prompt this time
                        piece = replace(piece, cached_tokens=pieces[0].cached_tokens)
                    known.append(replace(piece, end=None) if piece.end == "limit" else piece)
                    yield piece
        finally:
            if not drawn:
                self._say(key, [_told(piece) for piece in known])

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        key = self._key("score", ids, start)
        said = self._said(key)
        if said is not None:
            return Scores(**said)
        scores = await self._teacher.reviewer().score(request_id, ids, start, hints)
        self._say(key, asdict(scores))
        return scores

    def check_health(self) -> None:
        self._teacher.check_health()

    async def close(self) -> None:
        self._file.close()
        await self._teacher.close()

    def _key(self, kind: str, asked: Any, more: Any) -> bytes:
        what = json.dumps([kind, self.model, self.fingerprint, asked, more], sort_keys=True)
        return hashlib.sha256(what.encode()).digest()

    def _said(self, key: bytes) -> Any:
        try:
            row = self._file.execute("SELECT what FROM said WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            logger.warning("not looked up: %s", error)
            return None
        return None if row is None else json.loads(row[0])

    def _say(self, key: bytes, what: Any) -> None:
        try:
            self._file.execute("INSERT OR REPLACE INTO said VALUES (?, ?)", (key, json.dumps(what)))
        except sqlite3.Error as error:
            logger.warning("not remembered: %s", error)  # a disk that is full is no reason to fail a request


def _asked(prompt: Prompt) -> Any:
    """What makes a prompt this one: its ids, or its texts where it has none."""
    return prompt.ids or [[(message.role, message.content) for message in prompt.messages], prompt.text]


def _suffices(pieces: Sequence[OutputChunk], max_tokens: int) -> bool:
    return any(piece.end for piece in pieces) or sum(piece.count for piece in pieces) >= max_tokens


def _told(piece: OutputChunk) -> dict[str, Any]:
    """As the file has it."""
    return asdict(replace(piece, usage=None)) | {"usage": piece.usage.model_dump() if piece.usage else None}


def _piece(said: dict[str, Any]) -> OutputChunk:
    usage = said.get("usage")
    return OutputChunk(**{**said, "usage": Usage(**usage) if usage else None})
