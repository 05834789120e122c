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

from cloud_teacher.teacher import ALONE, Piece, Sampling, Scores, Standing, Teacher
from shared.errors import ConfigurationError
from shared.wire import Message

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
        self.end_id = teacher.end_id
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

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._teacher.encode(messages)

    def encode_answer(self, text: str) -> list[int]:
        return self._teacher.encode_answer(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._teacher.decode(ids)

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        self._teacher.check_schema(json_schema)

    async def stream(
        self, request_id: str, prompt_ids: list[int], sampling: Sampling, standing: Standing = ALONE
    ) -> AsyncGenerator[Piece, None]:
        drawn = sampling.temperature > 0 and sampling.seed is None
        key = self._key("stream", prompt_ids, asdict(replace(sampling, max_tokens=1)))
        pieces = [] if drawn else [Piece(**piece) for piece in self._said(key) or []]
        known = list(pieces)
        written: list[int] = []
        for piece in pieces:
            written += piece.token_ids
            if len(written) >= sampling.max_tokens and piece.end is None:
                piece = replace(piece, end="limit")
            yield piece
            if piece.end:
                return
        try:
            # Where the memory ends the teacher goes on.
            left = replace(sampling, max_tokens=sampling.max_tokens - len(written))
            async with aclosing(self._teacher.stream(request_id, prompt_ids + written, left, standing)) as more:
                async for piece in more:
                    if pieces:  # its own words were in the prompt this time
                        piece = replace(piece, cached_tokens=pieces[0].cached_tokens)
                    known.append(replace(piece, end=None) if piece.end == "limit" else piece)
                    yield piece
        finally:
            if not drawn:
                self._say(key, [asdict(piece) for piece in known])

    async def score(self, request_id: str, ids: list[int], start: int, standing: Standing = ALONE) -> Scores:
        key = self._key("score", ids, start)
        said = self._said(key)
        if said is not None:
            return Scores(**said)
        scores = await self._teacher.score(request_id, ids, start, standing)
        self._say(key, asdict(scores))
        return scores

    def check_health(self) -> None:
        self._teacher.check_health()

    async def close(self) -> None:
        self._file.close()
        await self._teacher.close()

    def _key(self, kind: str, ids: Sequence[int], more: Any) -> bytes:
        what = json.dumps([kind, self.model, self.fingerprint, list(ids), more], sort_keys=True)
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
