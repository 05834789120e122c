"""One teacher's attempt at a job: the verdict of a review, and guidance."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from cloud_teacher.accounting.usage import UsageRecorder
from cloud_teacher.guidance.job import GuidanceJob, JobState
from cloud_teacher.guidance.review import review
from cloud_teacher.teachers.base import GenerationParams, OutputChunk, Prompt, Teacher
from cloud_teacher.teachers.pool import PooledTeacher
from shared.errors import EngineFailed, NotReady
from shared.prompting.word_boundaries import wraps_up
from shared.protocol.guidance import FinishReason, Guidance, GuidanceRequest, ReviewRequest, Start, Usage, Verdict

LINE_END = "\n"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job that is prepared for one teacher."""

    job: GuidanceJob
    pooled: PooledTeacher
    teacher: Teacher
    recorder: UsageRecorder
    engine_id: str
    """Request id for the engine, which needs unique ones; clients may send the same `request_id` twice."""
    prompt: Prompt
    reviewed: list[int] | None
    """Ids of a review's answer and draft as one text."""
    max_usage: Usage

    def emit_start(self) -> None:
        """Emit `Start`, once. It names this teacher, so that no other one can take the job from then on."""
        if self.job.state is JobState.PENDING:
            start = Start(
                request_id=self.job.record.request_id,
                model=self.teacher.model,
                template=self.job.template.identity,
                tokenizer=self.teacher.fingerprint,
            )
            self.job.emit(start)

    async def write(self) -> FinishReason:
        """For a review, score the draft and emit the verdict; then generate if tokens remain."""
        request, prompt, record = self.job.request, self.prompt, self.job.record
        if isinstance(request, ReviewRequest) and self.reviewed is not None:
            reviewer = self.teacher.reviewer()
            result = await review(
                reviewer, request, self.engine_id, prompt=prompt, ids=self.reviewed, hints=self.job.hints
            )
            verdict = result.verdict
            record.prompt_tokens += verdict.usage.prompt_tokens
            record.cached_tokens += verdict.usage.cached_tokens
            record.queue_s = result.queue_s
            self._emit(verdict)
            if verdict.accepted:
                return FinishReason.STOP if request.draft_is_final else FinishReason.HANDBACK
            answer = request.answer + request.draft[: verdict.accepted_chars]
            if result.correction and _is_greedy(request):
                if reason := self._write_correction(result.correction):
                    return reason
                answer += result.correction.text
            prompt = prompt.with_answer(answer, reviewer.encode_answer(answer))
        first_token_s = self.pooled.entry.first_token_s
        try:
            async with asyncio.timeout(first_token_s) as deadline:
                return await self._generate(prompt, deadline)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise NotReady(f"teacher {self.pooled.name!r} sent no token within {first_token_s} s") from None

    def _write_correction(self, chunk: OutputChunk) -> FinishReason | None:
        """Write the first token, which a review's scores already yield. Returns the reason if it is the last one too."""
        request, record = self.job.request, self.job.record
        self.recorder.add(record, chunk)
        self.pooled.mark_healthy()
        if chunk.end:
            return FinishReason.STOP
        self._emit_chunk(chunk)
        if LINE_END in chunk.text and request.stop_at_line_end:
            return FinishReason.HANDBACK
        return FinishReason.BUDGET if request.max_guidance_tokens <= record.completion_tokens else None

    async def _generate(self, prompt: Prompt, deadline: asyncio.Timeout) -> FinishReason:
        """Stream from the teacher up to the budget or the end of its context. The first chunk lifts the deadline."""
        request, record = self.job.request, self.job.record
        room = self.teacher.max_model_len - prompt.tokens
        if room <= 0:
            return FinishReason.LENGTH
        written = record.completion_tokens
        budget = request.max_guidance_tokens - written
        params = _params(request, max_tokens=min(budget, room))
        record.prompt_tokens += prompt.tokens
        record.estimated = prompt.estimated_tokens is not None
        cached = record.cached_tokens
        end = None
        before = ""
        dropping = False
        async with aclosing(self.teacher.stream(self.engine_id, prompt, params, self.job.hints)) as chunks:
            async for chunk in chunks:
                self.recorder.add(record, chunk)
                record.queue_s = record.queue_s if chunk.queue_s is None else chunk.queue_s
                record.cached_tokens = max(record.cached_tokens, cached + chunk.cached_tokens)
                end = "limit" if dropping else chunk.end
                if (chunk.token_ids or chunk.text) and not dropping:
                    deadline.reschedule(None)
                    self.pooled.mark_healthy()
                    self._emit_chunk(chunk)
                left = params.max_tokens - (record.completion_tokens - written)
                if request.stop_at_word_boundary and left > 0 and wraps_up(before, chunk.text, left):
                    end = end or "limit"
                    # If only the server's last chunk has the usage it bills for, the few remaining tokens are read and dropped.
                    dropping = record.estimated
                    if not dropping:
                        break
                before = chunk.text[-1:] or before
        if end is None:
            raise EngineFailed("the engine ended the answer without a finish reason")
        limit = FinishReason.BUDGET if budget <= room else FinishReason.LENGTH
        return {"stop": FinishReason.STOP, "string": FinishReason.HANDBACK}.get(end, limit)

    def _emit(self, event: Verdict | Guidance) -> None:
        self.emit_start()
        self.job.emit(event)

    def _emit_chunk(self, chunk: OutputChunk) -> None:
        """Emit a chunk as guidance, the first one with the usage so far."""
        first = not self.job.events or not isinstance(self.job.events[-1], Guidance)
        self._emit(
            Guidance(
                text=chunk.text,
                token_ids=list(chunk.token_ids),
                logprobs=None if chunk.logprobs is None else list(chunk.logprobs),
                usage=self.job.record.usage if first else None,
                tokens=chunk.tokens,
            )
        )


def _is_greedy(request: GuidanceRequest) -> bool:
    """Return True if decoding is plain argmax, so that the scoring pass already yields the first token.

    Requests for log-probabilities are decoded, since the scoring pass does not return them.
    """
    penalised = request.presence_penalty or request.frequency_penalty or request.repetition_penalty != 1
    return request.temperature == 0 and not penalised and request.json_schema is None and not request.logprobs


def _params(request: GuidanceRequest, *, max_tokens: int) -> GenerationParams:
    return GenerationParams(
        **request.sampling_options(),
        max_tokens=max_tokens,
        json_schema=request.json_schema,
        logprobs=request.logprobs,
        stop=(LINE_END,) if request.stop_at_line_end else (),
    )
