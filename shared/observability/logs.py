"""Log lines, as text or as JSON, with the id of the request they belong to and of its trace."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]

CLIENTS = ("httpx", "httpx2")
"""Loggers with a line for each request that is sent: ours has its own. The second is the openai client's."""


@dataclass(slots=True)
class CurrentRequest:
    """The request that is being answered. All tasks that work for it see the same one."""

    request_id: str
    trace_id: str | None = None
    """Once it has a span."""


CURRENT_REQUEST: ContextVar[CurrentRequest | None] = ContextVar("gkt_current_request", default=None)


class TextFormatter(logging.Formatter):
    """A line to read, with the trace's id at its end where there is a trace."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        line = super().formatMessage(record)
        request = CURRENT_REQUEST.get()
        return f"{line} trace_id={request.trace_id}" if request and request.trace_id else line


class JsonFormatter(logging.Formatter):
    """One object a line. Of an exception its type and where it came from, not what it says: that may quote a prompt."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := CURRENT_REQUEST.get():
            told["request_id"] = request.request_id
            if request.trace_id:
                told["trace_id"] = request.trace_id
        if record.exc_info and record.exc_info[0]:
            told["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            told["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(told, ensure_ascii=False)


def set_up_logs(level: str, form: LogFormat = "text", *, to: TextIO | None = None) -> None:
    """Send what this process logs to stderr, in one form."""
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for client in CLIENTS:
        logging.getLogger(client).setLevel(logging.WARNING)
