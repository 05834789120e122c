"""A scripted edge over real HTTP that answers in the edge's own shapes and lists its requests."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse


@dataclass(frozen=True)
class Reply:
    """A scripted answer: the teacher's words, then the student's."""

    teacher: Sequence[str] = ()
    student: Sequence[str] = ()
    logprob: float = -0.1
    fallback: str | None = None
    status: int = 200
    breaks: bool = False
    finish: str = "stop"
    template: str = "answer@1#abcd"


Script = Callable[[dict[str, Any]], Reply]


class ScriptedEdge:
    """Answers each request with the reply that `script` returns for its body."""

    def __init__(self, script: Script, *, model: str = "small") -> None:
        self.asked: list[dict[str, Any]] = []
        self.model = model
        self._script = script
        self.app = FastAPI()
        self.app.get("/ready")(self._ready)
        self.app.get("/health")(self._ready)
        self.app.post("/v1/chat/completions")(self._complete)

    def questions(self) -> list[tuple[str, str]]:
        """Return the last message and the model of each request, in order, without the probes."""
        return [(body["messages"][-1]["content"], body["model"]) for body in self.asked if body["max_tokens"] > 8]

    async def _ready(self) -> dict[str, str]:
        return {"status": "ok", "model": self.model}

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        reply = self._script(body)
        if reply.status != 200:
            detail = {"message": f"not with {body.get('gkt')}", "type": "invalid_request_error", "retry_after_s": 0.0}
            return JSONResponse({"error": detail}, reply.status)
        return StreamingResponse(self._stream(reply), media_type="text/event-stream")

    async def _stream(self, reply: Reply) -> AsyncGenerator[str]:
        words = [(word, "teacher") for word in reply.teacher] + [(word, "student") for word in reply.student]
        yield _data(_choice({"role": "assistant", "content": ""}))
        for word, source in words:
            logprobs = {"content": [{"token": word, "logprob": reply.logprob}]} if source == "student" else None
            yield _data(_choice({"content": word}, logprobs=logprobs) | {"gkt": {"source": source}})
        if reply.breaks:
            yield _data({"error": {"message": "out of room", "type": "server_error"}})
            return
        yield _data(_choice({}, finish=reply.finish) | {"gkt": self._report(reply)})
        yield "data: [DONE]\n\n"

    def _report(self, reply: Reply) -> dict[str, Any]:
        parts = [("teacher", reply.teacher), ("student", reply.student)]
        segments = [{"source": name, "chars": len("".join(ws)), "tokens": len(ws)} for name, ws in parts if ws]
        teacher = {"model": "large", "prompt_tokens": 30, "cached_tokens": 20, "completion_tokens": len(reply.teacher)}
        return {
            "mode": "fixed",
            "segments": [segments],
            "student": {"model": self.model, "prompt_tokens": 25, "completion_tokens": len(reply.student)},
            "teacher": teacher | {"calls": 2, "bytes_sent": 500, "bytes_received": 90} if reply.teacher else None,
            "template": reply.template if reply.teacher else None,
            "fallback": reply.fallback,
            "request_id": "r",
        }


def _choice(delta: dict[str, Any], *, logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "c", "created": 1, "model": "gkt", "choices": [choice]}


def _data(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"
