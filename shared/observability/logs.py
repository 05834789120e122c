"""Log lines as text or JSON, with the ids of the request and its trace."""

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
"""Loggers that write a line for each request sent. They are quiet, because the services log that themselves. httpx2 is the
openai client's.
"""


@dataclass(slots=True)
class CurrentRequest:
    """The request that is being answered. All tasks that work for it share this object."""

    request_id: str
    trace_id: str | None = None
    """Set when the request has a span."""


CURRENT_REQUEST: ContextVar[CurrentRequest | None] = ContextVar("gkt_current_request", default=None)


class TextFormatter(logging.Formatter):
    """Formats a line of text, with the trace id at its end if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        line = super().formatMessage(record)
        request = CURRENT_REQUEST.get()
        return f"{line} trace_id={request.trace_id}" if request and request.trace_id else line


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line. An exception has its type and stack, without its message, which may quote a prompt."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := CURRENT_REQUEST.get():
            fields["request_id"] = request.request_id
            if request.trace_id:
                fields["trace_id"] = request.trace_id
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            fields["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(fields, ensure_ascii=False)


def set_up_logs(level: str, form: LogFormat = "text", *, to: TextIO | None = None) -> None:
    """Send the log of this process to stderr in one format."""
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for client in CLIENTS:
        logging.getLogger(client).setLevel(logging.WARNING)
