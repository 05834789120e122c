"""A scripted server of OpenAI's chat API, for behaviour that real servers show only sometimes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from tests.running import serving

USAGE = {"prompt_tokens": 31, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 16}}


def delta(text: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk with text. `more` are further fields of the delta."""
    content = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": {**content, **more}, "finish_reason": finish}]}


def usage(**counts: Any) -> dict[str, Any]:
    """Return the last chunk of a stream with usage."""
    return {"choices": [], "usage": USAGE | counts}


PARIS = (delta("", role="assistant"), delta("Paris"), delta(" is it"), delta(finish="stop"), usage())


@dataclass
class Upstream:
    """The server's next answer, and the requests that it received."""

    says: Sequence[dict[str, Any]] = PARIS
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ends: bool = True
    """Send `[DONE]` at the end; otherwise cut the connection behind the last chunk."""
    waits_before: int | None = None
    """Number of the chunk before which the server stops sending, for ever."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closes the stream."""
    url: str = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            self.asked.append(await request.json())
            self.keys.append(request.headers["authorization"].removeprefix("Bearer "))
            if self.status != 200:
                return JSONResponse({"error": {"message": "secret text"}}, self.status, headers=self.headers)
            return StreamingResponse(self._stream(), media_type="text/event-stream")

        return app

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        try:
            for place, chunk in enumerate(self.says):
                if place == self.waits_before:
                    await asyncio.Event().wait()
                yield f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', **chunk})}\n\n".encode()
                await asyncio.sleep(0)
            if not self.ends:
                raise ConnectionResetError
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise


@asynccontextmanager
async def scripted(*says: dict[str, Any], **more: Any) -> AsyncGenerator[Upstream]:
    upstream = Upstream(says or PARIS, **more)
    async with serving(upstream.app(), ready=False) as url:
        upstream.url = f"{url}/v1"
        yield upstream
