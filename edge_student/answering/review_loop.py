"""Taking turns: the student writes an answer step by step, and the teacher writes where the student should not.

A step is a line, or several, or as much as the student is sure of. In mode `review` the teacher reads each step and goes on
from its first doubt; in mode `on_demand` it is asked for the steps that the student is not sure of. Either way the student
takes over again at the step's end, once it agrees, or after so many words as a turn has. The words of a step are shown when
it is known that they stay.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from edge_student.answering.choice import Choice, Ended, Piece
from edge_student.answering.drafter import Drafter, Step, agrees
from edge_student.answering.logprobs import logprobs_of_guidance, logprobs_of_word
from edge_student.answering.report import Account
from edge_student.answering.tracing import written
from edge_student.cloud.client import Cloud, CloudFailed
from edge_student.policy import Plan
from edge_student.student import Sampling, Student, StudentSequence, Word
from shared.observability.telemetry import Span
from shared.protocol.gkt import Mode, Source
from shared.protocol.guidance import Done, FinishReason, Guidance, GuidanceRequest, ReviewRequest, Start, Verdict

logger = logging.getLogger("gkt.answering")

CHARACTER_TOKENS = 4
"""No character has more: in UTF-8 it has no more bytes."""


class Turns:
    """One choice of an answer in which student and teacher take turns."""

    def __init__(
        self,
        choice: Choice,
        student: Student,
        cloud: Cloud,
        account: Account,
        *,
        prompt: Sequence[int],
        plan: Plan,
        sampling: Sampling,
        request: GuidanceRequest,
        headers: dict[str, str],
        span: Span,
        draft_ahead: bool,
    ) -> None:
        self._choice = choice
        self._student = student
        self._cloud = cloud
        self._account = account
        self._prompt = prompt
        self._plan = plan
        # The student's own probabilities are what its certainty is read from.
        top = 0 if sampling.top_logprobs is None and plan.confidence_threshold else sampling.top_logprobs
        self._shown_logprobs = sampling.top_logprobs is not None
        self._sampling = replace(sampling, top_logprobs=top)
        self._request = request
        self._headers = headers
        self._span = span
        self._draft_ahead = draft_ahead
        self._text = ""
        self._alone = False
        """Whether the teacher is not asked any more."""
        self._sequence: StudentSequence | None = None
        """One that stands at the end of the text and has not been handed over."""
        self._said_nothing = False
        """Whether the teacher's last turn ended inside a character."""
        self._first: StudentSequence | None = None
        """The sequence that the first words were written in."""

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, found computed as the first words were written."""
        return self._first.cached_tokens if self._first else 0

    async def parts(self) -> AsyncGenerator[Piece | Ended, None]:
        """Pieces of the answer, then its end. Raises what `Student.open` and `StudentSequence.generate` raise."""
        drafter: Drafter | None = None
        try:
            while not self._choice.ended:
                self._alone = self._alone or self._left <= 0
                drafter = drafter or self._draft()
                if self._alone:
                    async for word in drafter.words():
                        self._account.student_wrote(bool(word.token))
                        for part in self._show_word(word):
                            yield part
                        if self._choice.ended:
                            break
                    return
                step = await self._step(drafter)
                self._account.student_wrote(sum(bool(word.token) for word in step.words))
                if self._keeps(step):
                    for part in self._show(step, len(step.text), ends=True):
                        yield part
                    continue
                if not self._draft_ahead:
                    await drafter.close()
                    drafter = None
                goes_on = False
                async with aclosing(self._consult(step)) as consulted:
                    async for said in consulted:
                        goes_on = said is None
                        if said:
                            yield said
                if drafter and not goes_on:
                    await drafter.close()
                    drafter = None
        finally:
            if drafter:
                await drafter.close()
            if self._sequence:
                self._sequence.close()

    def _draft(self) -> Drafter:
        left = max(0, self._sampling.max_tokens - self._choice.tokens)
        sequence, self._sequence = self._sequence or self._open(), None
        self._first = self._first or sequence
        sampling = replace(self._sampling, max_tokens=left)
        return Drafter(sequence, written(sequence, sampling, self._student.model, self._span))

    def _open(self, *, scored: bool = False) -> StudentSequence:
        return self._student.open(
            self._prompt,
            text=self._text,
            scores_of="guidance" if scored and self._plan.handback_after else None,
            cache_salt=self._request.cache_salt,
        )

    async def _step(self, drafter: Drafter) -> Step:
        by_certainty = self._plan.mode is Mode.REVIEW and self._plan.confidence_threshold
        return await (
            drafter.sure(self._plan.confidence_threshold) if by_certainty else drafter.lines(self._plan.draft_lines)
        )

    def _keeps(self, step: Step) -> bool:
        """Whether a step stays as the student wrote it, without the teacher."""
        confidence_threshold = self._plan.confidence_threshold
        return self._plan.mode is Mode.ON_DEMAND and (
            not confidence_threshold or step.begins_sure(confidence_threshold)
        )

    async def _consult(self, step: Step) -> AsyncGenerator[Piece | Ended | None, None]:
        """The teacher's turn. None comes last where the student's draft stands, and goes on behind the step."""
        reviewed = self._plan.mode is Mode.REVIEW
        stands = False
        teacher_text = ""
        request, self._said_nothing = self._ask(step), False
        try:
            async with aclosing(self._cloud.guide(request, self._headers, self._account.traffic)) as events:
                async for event in events:
                    match event:
                        case Start():
                            self._account.teacher_began(event)
                            if not reviewed:
                                self._sequence = self._open(scored=True)
                        case Verdict():
                            self._account.teacher_said(event)
                            stands = event.accepted
                            for part in self._show(step, event.accepted_chars, ends=stands):
                                yield part
                            if not stands:
                                self._sequence = self._open(scored=True)
                        case Guidance():
                            self._account.teacher_said(event)
                            for part in self._take(event):
                                yield part
                            teacher_text += event.text
                            if self._choice.ended or self._agreed(teacher_text):
                                return  # which closes the stream, and stops the teacher
                        case Done():
                            self._account.teacher_done(event)
                            if self._choice.ended:
                                return
                            if event.finish_reason is FinishReason.STOP:
                                for part in self._choice.end("stop"):
                                    yield part
                            self._said_nothing = event.finish_reason is FinishReason.BUDGET and not teacher_text
                            over = event.finish_reason is FinishReason.BUDGET and self._left <= 0
                            self._alone = over or event.finish_reason is FinishReason.LENGTH
        except CloudFailed as failure:
            self._account.fallback = failure.reason
            self._alone = True
            logger.warning("goes on without the cloud: %s", failure)
            if not teacher_text and not stands and self._sequence is None:
                # Nothing was said of the step: it is as good as the student is.
                for part in self._show(step, len(step.text), ends=True):
                    yield part
        finally:
            self._account.teacher_left()
        if stands and not self._choice.ended:
            yield None

    @property
    def _left(self) -> int:
        """Tokens that the teacher may still write."""
        budget = self._plan.budget - self._choice.tokens_of(Source.TEACHER)
        return min(budget, self._sampling.max_tokens - self._choice.tokens)

    def _ask(self, step: Step) -> GuidanceRequest:
        most = self._left
        if self._plan.max_correction_tokens:
            most = min(most, self._plan.max_correction_tokens + (CHARACTER_TOKENS if self._said_nothing else 0))
        changes = {
            "max_guidance_tokens": most,
            "answer": self._text,
            "stop_at_line_end": True,
            "stop_at_word_boundary": False,
        }
        if self._plan.mode is Mode.ON_DEMAND:
            return self._request.model_copy(update=changes)
        about = {
            "draft": step.text,
            "draft_is_final": step.end == "stop",
            "acceptance_threshold": self._plan.acceptance_threshold,
        }
        return ReviewRequest(**{**dict(self._request), **changes, **about})

    def _agreed(self, teacher_text: str) -> bool:
        if self._sequence is None or not self._plan.handback_after:
            return False
        self._sequence.foresee("")  # all that came is computed, the last word too, so that its scores are there
        return agrees(self._sequence.scores, teacher_text, self._plan.handback_after)

    def _take(self, event: Guidance) -> list[Piece | Ended]:
        self._text += event.text
        if self._sequence and event.text:
            self._sequence.extend(event.text)
        logprobs = logprobs_of_guidance(event) if self._shown_logprobs else []
        parts = self._choice.take(event.text, Source.TEACHER, tokens=event.count, logprobs=logprobs)
        if self._choice.tokens >= self._sampling.max_tokens and not self._choice.ended:
            parts += self._choice.end("length")  # how much of the step stands was not known when the teacher was asked
        return parts

    def _show(self, step: Step, chars: int, *, ends: bool) -> list[Piece | Ended]:
        """The first characters of a step are the answer's; with `ends` its end too."""
        parts: list[Piece | Ended] = []
        for word in step.words:
            kept = word.text[:chars]
            whole = len(kept) == len(word.text)
            if not (kept or (ends and whole)) or self._choice.ended:
                break
            chars -= len(kept)
            parts += self._show_word(word if whole and ends else replace(word, text=kept, end=None))
        return parts

    def _show_word(self, word: Word) -> list[Piece | Ended]:
        logprobs = logprobs_of_word(word) if self._shown_logprobs else []
        ending = logprobs.pop() if logprobs and word.end == "stop" else None
        self._text += word.text
        parts = self._choice.take(word.text, Source.STUDENT, tokens=bool(word.token), logprobs=logprobs)
        if word.end and not self._choice.ended:
            parts += self._choice.end(word.end, ending)
        return parts
