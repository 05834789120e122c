"""Modes `review` and `on_demand`: the student drafts, and the teacher writes where the student should not.

In `review` the teacher scores each draft and corrects it from the first token it rejects: speculative decoding with text on
the wire. In `on_demand` the teacher writes the lines that the student is not confident of (BiLD, arXiv 2302.07863). Either way
the student takes over at the line's end, once it agrees, or after `max_correction_tokens`. A draft is shown only when it is
known to stay.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from edge_student.answering.agreement import agrees
from edge_student.answering.choice import Choice, ChoiceEnded, Part, TextPart
from edge_student.answering.context import AnswerContext
from edge_student.answering.draft_reader import Draft, DraftReader
from edge_student.answering.logprobs import logprobs_of_guidance, logprobs_of_token
from edge_student.cloud.client import CloudFailed
from edge_student.policy import Policy
from edge_student.student import StudentSequence, TokenOutput
from shared.protocol.gkt import Mode, Source
from shared.protocol.guidance import Done, FinishReason, Guidance, GuidanceRequest, ReviewRequest, Start, Verdict

logger = logging.getLogger("gkt.answering")

MODES = (Mode.ON_DEMAND, Mode.REVIEW)

MAX_CHARACTER_TOKENS = 4
"""Most tokens of one character: UTF-8 encodes a character in at most four bytes."""
CONFIDENCE_THRESHOLD: dict[str, float] = {Mode.ON_DEMAND: 0.5, Mode.REVIEW: 0.1}
"""Defaults. For the first token of a line it is a coin toss; for a whole draft it is the value with the lowest cost."""
MAX_CORRECTION_TOKENS: dict[str, int] = {Mode.ON_DEMAND: 0, Mode.REVIEW: 1}
"""Defaults. 0 means up to the end of the line."""


async def answer(context: AnswerContext) -> AsyncGenerator[Part, None]:
    """Yield the parts of the answer, `Finished` last. Choices come one after the other."""
    recorder = context.recorder
    recorder.student.prompt_tokens = len(context.request.prompt)
    cached_tokens = 0
    for choice in context.choices:
        loop = _DraftLoop(context, _VerifiedText(context, choice))
        async with aclosing(loop.parts()) as parts:
            async for part in parts:
                yield part
        if choice.index == 0:
            cached_tokens = loop.cached_tokens
    recorder.student_done(cached_tokens)
    yield context.finished(
        scores=[] if context.policy.scores else None, answer_tokens=sum(choice.tokens for choice in context.choices)
    )


@dataclass(frozen=True)
class Thresholds:
    """The policy's fields for these modes, with the modes' defaults."""

    acceptance: float
    confidence: float
    handback_after: int
    max_correction_tokens: int
    draft_lines: int

    @classmethod
    def from_policy(cls, policy: Policy) -> Thresholds:
        draft_lines = policy.draft_lines if policy.mode == Mode.REVIEW else None
        confidence, correction = policy.confidence_threshold, policy.max_correction_tokens
        if confidence is None:
            confidence = CONFIDENCE_THRESHOLD[policy.mode] if draft_lines is None else 0.0
        if correction is None:
            correction = MAX_CORRECTION_TOKENS[policy.mode]
        handback_after = policy.handback_after or 0
        if 0 < correction <= handback_after:
            handback_after = 0  # The student would not have written the first token of a correction.
        return cls(policy.acceptance_threshold or 0.0, confidence, handback_after, correction, draft_lines or 1)


class _VerifiedText:
    """The text of one choice, as far as it is known to stay."""

    def __init__(self, context: AnswerContext, choice: Choice) -> None:
        self.choice = choice
        self.text = ""
        self._show_logprobs = context.request.sampling.top_logprobs is not None
        self._max_tokens = context.request.sampling.max_tokens

    @property
    def tokens_left(self) -> int:
        return self._max_tokens - self.choice.tokens

    def accept(self, draft: Draft, chars: int, *, whole: bool) -> list[TextPart | ChoiceEnded]:
        """Show the first `chars` characters of a draft; with `whole` the end that it sets counts too."""
        parts: list[TextPart | ChoiceEnded] = []
        for token in draft.tokens:
            kept = token.text[:chars]
            complete = len(kept) == len(token.text)
            if not (kept or (whole and complete)) or self.choice.ended:
                break
            chars -= len(kept)
            parts += self.add_token(token if complete and whole else replace(token, text=kept, end=None))
        return parts

    def add_token(self, token: TokenOutput) -> list[TextPart | ChoiceEnded]:
        """Show a token of the student."""
        logprobs = logprobs_of_token(token) if self._show_logprobs else []
        ending = logprobs.pop() if logprobs and token.end == "stop" else None
        self.text += token.text
        parts = self.choice.take(token.text, Source.STUDENT, tokens=bool(token.token), logprobs=logprobs)
        if token.end and not self.choice.ended:
            parts += self.choice.end(token.end, ending)
        return parts

    def add_guidance(self, event: Guidance) -> list[TextPart | ChoiceEnded]:
        """Show words of the teacher."""
        self.text += event.text
        logprobs = logprobs_of_guidance(event) if self._show_logprobs else []
        parts = self.choice.take(event.text, Source.TEACHER, tokens=event.count, logprobs=logprobs)
        if self.tokens_left <= 0 and not self.choice.ended:
            # How much of the draft would stay was not known when the teacher was called.
            parts += self.choice.end("length")
        return parts


class _TeacherCalls:
    """Builds the calls to the teacher about one choice, and decides when they are over."""

    def __init__(self, context: AnswerContext, verified: _VerifiedText, thresholds: Thresholds) -> None:
        self._context = context
        self._verified = verified
        self._thresholds = thresholds
        self._stopped = False
        self._ended_inside_character = False
        """True if the last correction ended inside a character."""
        self._progress_before = self._progress

    @property
    def over(self) -> bool:
        """True if the student writes the rest alone."""
        return self._stopped or self._tokens_left <= 0

    def stop(self) -> None:
        self._stopped = True

    def request(self, draft: Draft) -> GuidanceRequest:
        """Build the call about a draft."""
        self._progress_before = self._progress
        repeats, self._ended_inside_character = self._ended_inside_character, False
        limit = self._tokens_left
        if most := self._thresholds.max_correction_tokens:
            limit = min(limit, most + (MAX_CHARACTER_TOKENS if repeats else 0))
        request = self._context.request.guidance(
            max_guidance_tokens=limit, answer=self._verified.text, stop_at_line_end=True, stop_at_word_boundary=False
        )
        if self._context.policy.mode != Mode.REVIEW:
            return request
        return ReviewRequest(
            **dict(request),
            draft=draft.text,
            draft_is_final=draft.end == "stop",
            acceptance_threshold=self._thresholds.acceptance,
        )

    def record(self, reason: FinishReason, correction: str) -> None:
        """Record the end of a call. One that added neither text nor tokens would be repeated without end."""
        self._ended_inside_character = reason is FinishReason.BUDGET and not correction
        if reason is FinishReason.LENGTH or self._progress == self._progress_before:
            self.stop()

    @property
    def _progress(self) -> tuple[int, int]:
        return len(self._verified.text), self._verified.choice.tokens_of(Source.TEACHER)

    @property
    def _tokens_left(self) -> int:
        budget = self._context.policy.max_guidance_tokens - self._verified.choice.tokens_of(Source.TEACHER)
        return min(budget, self._verified.tokens_left)


class _DraftLoop:
    """Drafts and corrections of one choice."""

    def __init__(self, context: AnswerContext, verified: _VerifiedText) -> None:
        self._context = context
        self._verified = verified
        self._thresholds = Thresholds.from_policy(context.policy)
        self._review = context.policy.mode == Mode.REVIEW
        self._calls = _TeacherCalls(context, verified, self._thresholds)
        self._sequence: StudentSequence | None = None
        """A sequence at the end of the text that the student has not taken over yet."""
        self._first_sequence: StudentSequence | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the first sequence found in the cache."""
        return self._first_sequence.cached_tokens if self._first_sequence else 0

    async def parts(self) -> AsyncGenerator[TextPart | ChoiceEnded, None]:
        """Yield the choice. Raises what `Student.open` and `StudentSequence.generate` raise."""
        verified, recorder = self._verified, self._context.recorder
        reader: DraftReader | None = None
        try:
            while not verified.choice.ended:
                reader = reader or self._start_drafting()
                if self._calls.over:
                    async for token in reader.rest():
                        recorder.student_wrote(bool(token.token))
                        for part in verified.add_token(token):
                            yield part
                        if verified.choice.ended:
                            break
                    return
                draft = await self._next_draft(reader)
                recorder.student_wrote(sum(bool(token.token) for token in draft.tokens))
                if self._needs_no_teacher(draft):
                    for part in verified.accept(draft, len(draft.text), whole=True):
                        yield part
                    continue
                if not self._context.options.draft_ahead:
                    await reader.close()
                    reader = None
                accepted = False
                async with aclosing(self._consult(draft)) as parts:
                    async for consulted in parts:
                        accepted = consulted is None
                        if consulted:
                            yield consulted
                if reader and not accepted:
                    await reader.close()
                    reader = None
        finally:
            if reader:
                await reader.close()
            if self._sequence:
                self._sequence.close()

    def _start_drafting(self) -> DraftReader:
        sequence, self._sequence = self._sequence or self._open(), None
        self._first_sequence = self._first_sequence or sequence
        sampling = self._context.sampling_of(self._verified.choice, max_tokens=max(0, self._verified.tokens_left))
        if sampling.top_logprobs is None and self._thresholds.confidence:
            # The student's confidence is read from its probabilities.
            sampling = sampling.model_copy(update={"top_logprobs": 0})
        return DraftReader(sequence, self._context.generate(sequence, sampling))

    def _open(self, *, scored: bool = False) -> StudentSequence:
        return self._context.student.open(
            self._context.request.prompt,
            text=self._verified.text,
            scores_of="guidance" if scored and self._thresholds.handback_after else None,
            cache_salt=self._context.request.cache_salt,
        )

    async def _next_draft(self, reader: DraftReader) -> Draft:
        if self._review and self._thresholds.confidence:
            return await reader.confident(self._thresholds.confidence)
        return await reader.lines(self._thresholds.draft_lines)

    def _needs_no_teacher(self, draft: Draft) -> bool:
        threshold = self._thresholds.confidence
        return not self._review and (not threshold or draft.starts_confident(threshold))

    async def _consult(self, draft: Draft) -> AsyncGenerator[TextPart | ChoiceEnded | None, None]:
        """Call the teacher about a draft. None comes last if the draft is accepted and the student continues behind it."""
        verified, recorder = self._verified, self._context.recorder
        accepted = False
        correction = ""
        request = self._calls.request(draft)
        try:
            async with aclosing(self._context.call_teacher(request)) as events:
                async for event in events:
                    match event:
                        case Start():
                            recorder.teacher_began(event)
                            if not self._review:
                                self._sequence = self._open(scored=True)
                        case Verdict():
                            recorder.teacher_wrote(event)
                            accepted = event.accepted
                            for part in verified.accept(draft, event.accepted_chars, whole=accepted):
                                yield part
                            if not accepted:
                                self._sequence = self._open(scored=True)
                        case Guidance():
                            recorder.teacher_wrote(event)
                            if self._sequence and event.text:
                                self._sequence.extend(event.text)
                            for part in verified.add_guidance(event):
                                yield part
                            correction += event.text
                            if verified.choice.ended or self._student_agrees(correction):
                                return  # Closes the stream, which stops the teacher.
                        case Done():
                            recorder.teacher_done(event)
                            if verified.choice.ended:
                                return
                            if event.finish_reason is FinishReason.STOP:
                                for part in verified.choice.end("stop"):
                                    yield part
                            self._calls.record(event.finish_reason, correction)
        except CloudFailed as failure:
            recorder.fallback = failure.reason
            self._calls.stop()
            logger.warning("%s: continues without the cloud: %s", self._context.request.request_id, failure)
            if not correction and not accepted and self._sequence is None:
                # No verdict came, so the draft stays.
                for part in verified.accept(draft, len(draft.text), whole=True):
                    yield part
        finally:
            recorder.teacher_left()
        if accepted and not verified.choice.ended:
            yield None

    def _student_agrees(self, correction: str) -> bool:
        if self._sequence is None or not self._thresholds.handback_after:
            return False
        self._sequence.prefill_ahead("")  # Computes all that came, the last word too, so that its scores are there.
        return agrees(self._sequence.scores, correction, self._thresholds.handback_after)
