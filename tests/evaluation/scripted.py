"""Streams as the two services write them, with arrival times."""

from __future__ import annotations

from collections.abc import Sequence

from shared.protocol.gkt import ChunkSource, FallbackReason, GktReport, Mode, Side, Source
from shared.protocol.guidance import Done, FinishReason, Guidance, Start, Timing, Usage
from shared.protocol.openai_responses import AnswerEnd, ChatCompletionChunk, ChunkChoice, Delta
from shared.protocol.sse import OPENAI_DONE, TimedBytes, encode, encode_data

Timed = tuple[float, str, Source]


def answer_reads(
    words: Sequence[Timed], *, total_s: float, teacher: int = 0, fallback: FallbackReason | None = None
) -> list[TimedBytes]:
    """Return the edge's stream: roles first, a read for each word, then the report and the end in one read."""
    first_s = words[0][0]
    student = sum(source is Source.STUDENT for _, _, source in words)
    report = GktReport(
        mode=Mode.FIXED,
        segments=[],
        student=Side(model="s", completion_tokens=student, prompt_tokens=9),
        teacher=Side(model="t", completion_tokens=teacher) if teacher else None,
        fallback=fallback,
        request_id="r",
    )
    reads = [(first_s, _chunk(Delta(role="assistant", content="")))]
    reads += [(at_s, _chunk(Delta(content=text), ChunkSource(source=source))) for at_s, text, source in words]
    return [*reads, (total_s, _chunk(Delta(), report, "length") + OPENAI_DONE)]


def guidance_reads(words: Sequence[tuple[float, str]]) -> list[TimedBytes]:
    """Return the cloud's stream, with one token for each word."""
    reads = [(0.0, encode(Start(request_id="r", model="t", template="answer@1#0", tokenizer="f")))]
    reads += [(at_s, encode(Guidance(text=text, token_ids=[1]))) for at_s, text in words]
    usage = Usage(prompt_tokens=9, completion_tokens=len(words))
    done = Done(finish_reason=FinishReason.BUDGET, usage=usage, timing=Timing(total_ms=1))
    return [*reads, (words[-1][0], encode(done))]


def _chunk(delta: Delta, gkt: ChunkSource | GktReport | None = None, end: AnswerEnd | None = None) -> bytes:
    choice = ChunkChoice(index=0, delta=delta, finish_reason=end)
    return encode_data(ChatCompletionChunk(id="c", created=1, model="gkt", choices=[choice], gkt=gkt))
