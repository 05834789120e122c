"""Modes `fixed`, `adaptive` and `teacher`: the teacher writes the beginning of the answer, the student the rest.

`fixed` hands over at the end of the budget, `adaptive` as soon as the student agrees, `teacher` only if the cloud fails.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, closing

from edge_student.answering.agreement import agrees
from edge_student.answering.choice import Part
from edge_student.answering.context import AnswerContext
from edge_student.answering.fallback_prefetch import FallbackPrefetch
from edge_student.answering.logprobs import logprobs_of_guidance
from edge_student.answering.sequences import ChoiceSequences
from edge_student.answering.word_boundary_buffer import WordBoundaryBuffer
from edge_student.cloud.client import CloudFailed
from edge_student.student import StudentSequence, TokenOutput
from shared.protocol.gkt import FallbackReason, Mode, Source
from shared.protocol.guidance import Done, FinishReason, Guidance, Start
from shared.protocol.openai_responses import AnswerEnd, TokenLogprob

logger = logging.getLogger("gkt.answering")

MODES = (Mode.FIXED, Mode.ADAPTIVE, Mode.TEACHER)


async def answer(context: AnswerContext) -> AsyncGenerator[Part, None]:
    """Yield the parts of the answer, `Finished` last."""
    scored = context.policy.scores or context.policy.mode == Mode.ADAPTIVE
    sequences = ChoiceSequences(
        context, deferred=context.options.prefill_after_teacher, scores_of="guidance" if scored else None
    )
    with closing(sequences), closing(_Prefix(context, sequences)) as prefix:
        if context.policy.mode != Mode.TEACHER:
            # The student prefills the prompt while the teacher works. In mode `teacher` it mostly has nothing to do.
            sequences.open()
        async with aclosing(prefix.parts()) as parts:
            async for part in parts:
                yield part
        left = context.request.sampling.max_tokens - context.recorder.teacher_tokens
        async with aclosing(sequences.write(left, prefetched=prefix.prefetched())) as parts:
            async for part in parts:
                yield part
        yield context.finished(scores=sequences.scores if context.policy.scores else None)


class _Prefix:
    """The teacher's words: shown to the client in every choice, and fed to the student's sequences."""

    def __init__(self, context: AnswerContext, sequences: ChoiceSequences) -> None:
        structure = context.request.sampling.structure
        self._context = context
        self._sequences = sequences
        self._gate = structure.gate() if structure else None
        self._text = ""
        self._buffer = WordBoundaryBuffer(
            None if context.request.budget_covers_answer else context.policy.max_guidance_tokens,
            json=structure is not None and structure.json_schema is not None,
        )
        self._prefetch: FallbackPrefetch | None = None

    async def parts(self) -> AsyncGenerator[Part, None]:
        """Yield the teacher's part. A cloud that fails leaves what has arrived."""
        recorder = self._context.recorder
        self._prefetch = self._start_prefetch()
        end: AnswerEnd | None = None
        try:
            request = self._context.request.guidance(
                stop_at_word_boundary=not self._context.request.budget_covers_answer
            )
            async with aclosing(self._context.call_teacher(request)) as events:
                async for event in events:
                    match event:
                        case Start():
                            recorder.teacher_began(event)
                        case Guidance():
                            for part in self._receive(event):
                                yield part
                            if recorder.fallback:
                                return  # Closes the stream: the rest of it would be of no use.
                            if all(choice.ended for choice in self._context.choices):
                                return
                            if self._student_agrees():
                                break
                        case Done():
                            recorder.teacher_done(event)
                            end = self._end(event.finish_reason)
        except CloudFailed as failure:
            recorder.fallback = failure.reason
            logger.warning("%s: continues without the cloud: %s", self._context.request.request_id, failure)
        finally:
            recorder.teacher_left()
        for part in self._take(self._buffer.finish(complete=end is not None)):
            yield part
        if end == "stop" and self._gate and not self._gate.complete:
            end = None  # The teacher ended its answer before the structure was complete.
        for choice in self._context.choices:
            if end and not choice.ended:
                for part in choice.end(end):
                    yield part

    def prefetched(self) -> AsyncGenerator[TokenOutput, None] | None:
        """Return the tokens that the student has decoded unseen, if it has any; otherwise stop decoding."""
        if self._prefetch is None:
            return None
        if self._prefetch.started:
            return self._prefetch.tokens()
        self._prefetch.close()
        return None

    def close(self) -> None:
        if self._prefetch:
            self._prefetch.close()

    def _receive(self, event: Guidance) -> list[Part]:
        if self._prefetch:
            self._prefetch.close()
            self._prefetch = None
        self._context.recorder.teacher_wrote(event)
        parts = self._take(self._buffer.push(event.text, event.count), event.count, logprobs_of_guidance(event))
        adaptive = self._context.policy.mode == Mode.ADAPTIVE
        if not self._context.recorder.fallback and (self._buffer.ahead or adaptive):
            self._sequences.prefill_ahead(self._buffer.ahead)
        return parts

    def _take(self, text: str, tokens: int = 0, logprobs: Sequence[TokenLogprob] = ()) -> list[Part]:
        """Pass guidance to the client and to the student, as far as the answer's structure allows it."""
        if self._gate and (allowed := self._gate.push(text)) != text:
            text, self._context.recorder.fallback = allowed, FallbackReason.OFF_GRAMMAR
        self._text += text
        parts: list[Part] = []
        for choice in self._context.choices:
            if not choice.ended:
                parts += choice.take(text, Source.TEACHER, tokens=tokens, logprobs=logprobs)
        self._sequences.extend(text)
        return parts

    def _student_agrees(self) -> bool:
        policy = self._context.policy
        return policy.mode == Mode.ADAPTIVE and agrees(self._sequences.scores, self._text, policy.handback_after or 0)

    def _end(self, reason: FinishReason) -> AnswerEnd | None:
        """Return the reason if the answer ends with the guidance, or None if the student continues."""
        if reason is FinishReason.STOP:
            return "stop"
        return "length" if self._context.request.budget_covers_answer else None

    def _start_prefetch(self) -> FallbackPrefetch | None:
        """Prefetch for a single answer whose prompt the student prefills while the teacher works."""
        request, after_s = self._context.request, self._context.options.fallback_prefetch_after_s
        deferred = self._context.options.prefill_after_teacher
        if after_s is None or request.n > 1 or deferred or not self._sequences.opened:
            return None

        def start() -> tuple[StudentSequence, AsyncGenerator[TokenOutput, None]]:
            sequence = self._context.student.open(request.prompt, cache_salt=request.cache_salt)
            return sequence, self._context.generate(sequence, request.sampling)

        return FallbackPrefetch(start, after_s)
