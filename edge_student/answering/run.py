"""One request under way: ask the teacher, take its words in, hand over, finish, and say who wrote what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from edge_student.answering.choice import Choice, Counted, Finished, Part, Scored
from edge_student.answering.drafter import agrees
from edge_student.answering.handover import Seam
from edge_student.answering.head_start import HeadStart
from edge_student.answering.logprobs import logprobs_of_guidance, logprobs_of_word
from edge_student.answering.merge import merge
from edge_student.answering.report import Account
from edge_student.answering.request import Ask
from edge_student.answering.review_loop import Turns
from edge_student.answering.teacher_draft import draft_of
from edge_student.answering.tracing import written
from edge_student.cloud.client import Cloud, CloudFailed
from edge_student.student import Gate, ScoresOf, Student, StudentSequence, Word
from shared.observability.telemetry import Span
from shared.prompting.templates import Template
from shared.prompting.tokenize import tokenised
from shared.protocol.gkt import FallbackReason, GktReport, Mode, Source
from shared.protocol.guidance import Done, FinishReason, Guidance, Message, Start
from shared.protocol.openai import AnswerEnd, TokenLogprob

logger = logging.getLogger("gkt.answering")


class Run:
    """One request under way."""

    def __init__(
        self,
        ask: Ask,
        student: Student,
        cloud: Cloud,
        span: Span,
        *,
        hint: Template | None,
        draft_ahead: bool,
        fallback_prefetch_after_s: float | None,
    ) -> None:
        self._ask = ask
        self._hint = hint
        self._draft_ahead = draft_ahead
        self._head_start_after_s = fallback_prefetch_after_s
        self._head_start: HeadStart | None = None
        self._student = student
        self._cloud = cloud
        self._span = span
        self._choices = [Choice(index, ask.stops, show_stop=ask.stops_shown) for index in range(ask.n)]
        self._sequences: list[StudentSequence] = []
        self._scored = asyncio.Event()
        self._guidance = ""
        self._gate: Gate | None = None
        self.account = Account(ask.plan.mode, ask.request_id, student.model, policy=ask.plan.policy)

    async def parts(self) -> AsyncGenerator[Part, None]:
        plan, messages = self._ask.plan, self._ask.messages
        if plan.stepwise and messages is not None:
            async with aclosing(self._in_turns(messages)) as turns:
                async for part in turns:
                    yield part
            return
        drafts = plan.mode is Mode.OUTLINE
        if drafts and plan.budget and messages is not None and self._hint:
            await self._draft(messages, self._hint)
        if plan.mode is not Mode.TEACHER:
            # The student prefills the prompt while the teacher works. In mode `teacher` it mostly has nothing to do.
            self._open()
        if plan.budget and messages is not None and not drafts:
            async with aclosing(self._guided(messages)) as guided:
                async for part in guided:
                    yield part
        unfinished = [choice for choice in self._choices if not choice.ended]
        if unfinished:
            if not self._sequences:
                self._open()
            async with aclosing(merge([self._written(choice) for choice in unfinished])) as parts:
                async for part in parts:
                    yield part
        if self._sequences:
            # The first choice has computed what the others share with it.
            self.account.student_done(self._sequences[0].cached_tokens)
        tokens = sum(choice.tokens for choice in self._choices) if drafts else None
        yield Finished(self.report(), self.account.usage(len(self._ask.prompt), tokens))

    async def _draft(self, messages: Sequence[Message], hint: Template) -> None:
        """Have the teacher draft the answer, and the student see that behind the question."""
        # Meanwhile the student computes what will stand before the draft: the beginnings of prompts are kept.
        ahead = self._student.open(self._ask.prompt, cache_salt=self._ask.cache_salt)
        try:
            text = await draft_of(self._ask.guidance(messages), self._ask.cloud_headers, self._cloud, self.account)
        finally:
            ahead.close()
        if not text:
            return
        hinted = hint.apply(messages, answer=text)
        prompt = await tokenised(lambda: self._student.encode(hinted), hinted)
        if len(prompt) >= self._student.context_tokens:
            self.account.fallback = FallbackReason.TOO_LONG
        else:
            self._ask = replace(self._ask, prompt=prompt)

    async def _in_turns(self, messages: Sequence[Message]) -> AsyncGenerator[Part, None]:
        """The choices one after the other: each has the teacher's attention."""
        ask = self._ask
        self.account.student.prompt_tokens = len(ask.prompt)
        cached = 0
        for choice in self._choices:
            seed = None if ask.sampling.seed is None else ask.sampling.seed + choice.index
            turns = Turns(
                choice,
                self._student,
                self._cloud,
                self.account,
                prompt=ask.prompt,
                plan=ask.plan,
                sampling=replace(ask.sampling, seed=seed),
                request=self._ask.guidance(messages),
                headers=self._ask.cloud_headers,
                span=self._span,
                draft_ahead=self._draft_ahead,
            )
            async with aclosing(turns.parts()) as parts:
                async for part in parts:
                    yield part
            if choice.index == 0:
                cached = turns.cached_tokens
        self.account.student_done(cached)
        tokens = sum(choice.tokens for choice in self._choices)
        yield Finished(self.report(), self.account.usage(len(ask.prompt), tokens))

    def close(self) -> None:
        if self._head_start:
            self._head_start.close()
        for sequence in self._sequences:
            sequence.close()

    def report(self) -> GktReport:
        scores = [score for sequence in self._sequences[:1] for score in sequence.scores]
        return self.account.report(self._choices, scores if self._ask.plan.scored else None)

    def _open(self) -> None:
        for choice in self._choices:
            sequence = self._student.open(
                self._ask.prompt,
                held=self._ask.plan.held,
                # Prompt and guidance are the same for all choices: the first one's scores are everyone's.
                scores_of=self._scores_of() if choice.index == 0 else None,
                top=self._ask.sampling.top_logprobs or 0,
                cache_salt=self._ask.cache_salt,
            )
            self._sequences.append(sequence)
            if self._guidance:
                sequence.extend(self._guidance)
        self.account.student.prompt_tokens = len(self._ask.prompt)

    def _scores_of(self) -> ScoresOf | None:
        """Which tokens of others the student says how probable they were to it."""
        if self._ask.scored_from is not None:
            return self._ask.scored_from
        return "guidance" if self._ask.plan.scored or self._ask.plan.mode is Mode.ADAPTIVE else None

    def _student_agrees(self) -> bool:
        return bool(self._sequences) and agrees(
            self._sequences[0].scores, self._guidance, self._ask.plan.handback_after
        )

    async def _guided(self, messages: Sequence[Message]) -> AsyncGenerator[Part, None]:
        """The teacher's part, the same for every choice."""
        plan = self._ask.plan
        structure = self._ask.sampling.structure
        is_json = structure is not None and structure.json_schema is not None
        seam = Seam(None if plan.alone else plan.budget, json=is_json)
        self._gate = structure.gate() if structure else None
        self._head_start = self._begin_ahead()
        complete = False
        end: AnswerEnd | None = None
        try:
            request = self._ask.guidance(messages)
            async with aclosing(self._cloud.guide(request, self._ask.cloud_headers, self.account.traffic)) as events:
                async for event in events:
                    match event:
                        case Start():
                            self.account.teacher_began(event)
                        case Guidance():
                            if self._head_start:
                                self._head_start.close()
                                self._head_start = None
                            self.account.teacher_said(event)
                            text = seam.push(event.text, event.count)
                            for part in self._take(text, event.count, logprobs_of_guidance(event)):
                                yield part
                            if self.account.fallback:
                                return  # which closes the stream: nothing behind this can be used
                            if seam.ahead or plan.mode is Mode.ADAPTIVE:
                                for sequence in self._sequences:
                                    sequence.foresee(seam.ahead)
                            if all(choice.ended for choice in self._choices):
                                return
                            if plan.mode is Mode.ADAPTIVE and self._student_agrees():
                                break
                        case Done():
                            self.account.teacher_done(event)
                            end = _end(event.finish_reason, alone=plan.alone)
                            complete = end is not None
        except CloudFailed as failure:
            self.account.fallback = failure.reason
            logger.warning("%s goes on without the cloud: %s", self._ask.request_id, failure)
        finally:
            self.account.teacher_left()
        for part in self._take(seam.finish(complete=complete)):
            yield part
        if end == "stop" and self._gate and not self._gate.complete:
            end = None  # whatever the teacher thinks, the structure is not complete
        for choice in self._choices:
            if end and not choice.ended:
                for part in choice.end(end):
                    yield part

    def _begin_ahead(self) -> HeadStart | None:
        """A head start for a single answer whose prompt is computed while the teacher works; not where the prompt has scores."""
        ask = self._ask
        computes_prompt = bool(self._sequences) and not ask.plan.held
        if self._head_start_after_s is None or not computes_prompt or ask.n > 1 or ask.scored_from is not None:
            return None

        def begin() -> tuple[StudentSequence, AsyncGenerator[Word, None]]:
            sequence = self._student.open(ask.prompt, cache_salt=ask.cache_salt)
            return sequence, written(sequence, ask.sampling, self._student.model, self._span)

        return HeadStart(begin, self._head_start_after_s)

    def _words(self, choice: Choice) -> AsyncGenerator[Word, None]:
        """What the student writes of a choice."""
        sequence = self._sequences[choice.index]
        if self._head_start and self._head_start.begun:
            sequence.close()
            return self._head_start.words()
        if self._head_start:
            self._head_start.close()
        drafted = self._ask.plan.mode is Mode.OUTLINE
        sampling = self._ask.sampling
        left = sampling.max_tokens - (0 if drafted else self.account.teacher_tokens)
        seed = None if sampling.seed is None else sampling.seed + choice.index
        return written(sequence, replace(sampling, max_tokens=left, seed=seed), self._student.model, self._span)

    def _take(self, text: str, tokens: int = 0, logprobs: Sequence[TokenLogprob] = ()) -> list[Part]:
        """Guidance goes to the student and to the client, as far as it is of the structure."""
        if self._gate and (allowed := self._gate.push(text)) != text:
            text, self.account.fallback = allowed, FallbackReason.OFF_GRAMMAR
        self._guidance += text
        parts: list[Part] = []
        for choice in self._choices:
            if not choice.ended:
                parts += choice.take(text, Source.TEACHER, tokens=tokens, logprobs=logprobs)
        if text:
            for sequence in self._sequences:
                sequence.extend(text)
        return parts

    async def _written(self, choice: Choice) -> AsyncGenerator[Part, None]:
        """The student's part of one choice."""
        wants_scores = self._ask.scored_from is not None
        wants_count = self._ask.counted and choice.index == 0
        async with aclosing(self._words(choice)) as words:
            async for word in words:
                if wants_scores:
                    wants_scores = False
                    if choice.index == 0:
                        self._scored.set()
                    await self._scored.wait()
                    yield Scored(choice.index, self._sequences[0].scores)
                if wants_count:
                    wants_count = False
                    yield Counted(choice.index, len(self._ask.prompt), self._sequences[choice.index].cached_tokens)
                tokens = 1 if word.token else 0
                self.account.student_wrote(tokens)
                logprobs = logprobs_of_word(word)
                ending = logprobs.pop() if logprobs and word.end == "stop" else None
                ids = () if word.token_id is None else (word.token_id,)
                for part in choice.take(word.text, Source.STUDENT, tokens=tokens, logprobs=logprobs, ids=ids):
                    yield part
                if choice.ended:
                    return
                if word.end:
                    for part in choice.end(word.end, ending):
                        yield part


def _end(reason: FinishReason, *, alone: bool) -> AnswerEnd | None:
    """How the answer ends with the guidance, or None where the student goes on."""
    if reason is FinishReason.STOP:
        return "stop"
    return "length" if alone else None
