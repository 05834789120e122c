"""One piece of the engine's work: the conversation rendered, admitted, written by the teacher, and accounted for."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import aclosing
from dataclasses import dataclass

from cloud_teacher.accounting.usage import CLIENT_DISCONNECTED, Account, Books
from cloud_teacher.admission.admission import Admission
from cloud_teacher.guidance.generation import Generation
from cloud_teacher.guidance.prepare import Asked, Work, prepare
from cloud_teacher.guidance.review import review
from cloud_teacher.teachers.base import GenerationParams, Piece, Prompt, Teacher
from cloud_teacher.teachers.pool import FAILURES, Member, Teachers
from shared.errors import EngineFailed, GktError, InternalError, NotReady, Unsupported
from shared.prompting.word_boundaries import wraps_up
from shared.protocol.guidance import FinishReason, GuidanceRequest, ReviewRequest

logger = logging.getLogger("gkt.cloud")

STEP_END = "\n"


@dataclass(frozen=True, slots=True)
class _Call:
    """One teacher that is asked."""

    member: Member
    teacher: Teacher
    generation: Generation
    asked: Asked
    engine_id: str


class _Next(Exception):
    """Another teacher may do what this one could not."""

    def __init__(self, error: GktError) -> None:
        self.error = error


class Writer:
    """Writes generations, each with the first teacher that can."""

    def __init__(self, teachers: Teachers, *, max_prompt_tokens: int, admission: Admission, books: Books) -> None:
        self._teachers = teachers
        self._max_prompt_tokens = max_prompt_tokens
        self._admission = admission
        self._books = books
        self._numbers = itertools.count(1)

    async def write(self, generation: Generation, asked: Asked) -> None:
        """Write it to its end and close its account; all that goes wrong is the generation's to tell. Cancel it to stop."""
        account = generation.account
        try:
            reason = await self._in_turn(generation, asked)
            account.outcome = reason
        except asyncio.CancelledError:
            account.outcome = CLIENT_DISCONNECTED
            if account.engaged:
                self._books.close(account)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who reads has to know
            account.outcome = error.code if isinstance(error, GktError) else InternalError.code
            if account.engaged:
                await self._written_down(generation)
            generation.fail(error)
        else:
            # Before anybody hears of the end: what was said to be done is in the ledger, whatever happens next.
            if await self._written_down(generation):
                generation.end(reason)

    async def _in_turn(self, generation: Generation, asked: Asked) -> FinishReason:
        """One teacher after the other, until one has written something. Raises what the last of them raises."""
        members = self._teachers.in_order(asked.request.model)
        failure: GktError | None = None
        for member in members:
            try:
                return await self._with(member, generation, asked, alone=member is members[-1])
            except _Next as handed_on:
                error = handed_on.error
                if failure is None or not isinstance(error, Unsupported):
                    failure = error
                if member is not members[-1]:
                    self._books.metrics.failovers.labels(member.name, error.code).inc()
        assert failure is not None  # noqa: S101 - there is one teacher at least
        raise failure

    async def _with(self, member: Member, generation: Generation, asked: Asked, *, alone: bool) -> FinishReason:
        """Raises _Next where this teacher failed before its first word: whatever it has done is not told and not paid for."""
        account = generation.account
        try:
            teacher = member.ask()
            work = await prepare(teacher, asked, self._max_prompt_tokens)
        except (*FAILURES, Unsupported) as error:
            raise _Next(error) from error
        account.turn_to(teacher.model, member.prices)
        try:
            async with self._admission.place(asked.caller, account, work.most, asked.standing.priority):
                account.engaged = True
                generation.expect(teacher, work.most)
                if alone:
                    generation.admit()
                call = _Call(member, teacher, generation, asked, self._engine_id(account))
                try:
                    reason = await self._do(call, work)
                except GktError as error:
                    if account.estimated and not generation.items:
                        account.owe_nothing()  # nobody has sent a bill
                    member.failed(error)
                    if generation.admitted or not isinstance(error, FAILURES):
                        raise
                    logger.warning("%s: %s failed: %s", account.subject.request_id, member.name, error.message)
                    account.owe_nothing()
                    raise _Next(error) from error
                member.answered()
                return reason
        except _Next:
            self._admission.give_back(account)
            account.engaged = False
            raise

    async def _written_down(self, generation: Generation) -> bool:
        try:
            await self._books.close(generation.account)
        except GktError as error:
            generation.fail(error)
            return False
        return True

    def _engine_id(self, account: Account) -> str:
        """Two requests may come with the same id; the engine wants them apart."""
        return f"{account.subject.request_id}.{next(self._numbers)}"

    async def _do(self, call: _Call, work: Work) -> FinishReason:
        """Of a review the verdict, and guidance where that leaves room for it."""
        request, account = call.asked.request, call.generation.account
        prompt = work.prompt
        if isinstance(request, ReviewRequest) and work.reviewed is not None:
            reviewer = call.teacher.reviewer()
            reviewed = await review(
                reviewer, request, call.engine_id, prompt=prompt, ids=work.reviewed, standing=call.asked.standing
            )
            account.prompt_tokens += reviewed.verdict.usage.prompt_tokens
            account.cached_tokens += reviewed.verdict.usage.cached_tokens
            account.queue_s = reviewed.queue_s
            call.generation.add(reviewed.verdict)
            if reviewed.verdict.accepted:
                return FinishReason.STOP if request.draft_is_final else FinishReason.HANDBACK
            answer = request.answer + request.draft[: reviewed.verdict.accepted_chars]
            if reviewed.first and _is_greedy(request):
                reason = self._say_first(call, reviewed.first)
                if reason:
                    return reason
                answer += reviewed.first.text
            prompt = prompt.going_on(answer, reviewer.encode_answer(answer))
        first_token_s = call.member.entry.first_token_s
        try:
            async with asyncio.timeout(first_token_s) as silence:
                return await self._guide(call, prompt, silence)
        except TimeoutError:
            if not silence.expired():
                raise
            raise NotReady(f"{call.member.name} has said nothing for {first_token_s} s") from None

    def _say_first(self, call: _Call, piece: Piece) -> FinishReason | None:
        """The first word, which a review's own prefill has told. Why nothing comes behind it, or None where something may."""
        account = call.generation.account
        self._books.take(account, piece)
        call.member.answered()
        if piece.end:
            return FinishReason.STOP
        call.generation.add(piece)
        if STEP_END in piece.text and call.asked.request.stop_at_line_end:
            return FinishReason.HANDBACK
        return FinishReason.BUDGET if call.asked.request.max_guidance_tokens <= account.completion_tokens else None

    async def _guide(self, call: _Call, prompt: Prompt, silence: asyncio.Timeout) -> FinishReason:
        account, request = call.generation.account, call.asked.request
        room = call.teacher.max_model_len - prompt.tokens
        if room <= 0:
            return FinishReason.LENGTH
        budget = request.max_guidance_tokens - account.completion_tokens
        params = _params(request, max_tokens=min(budget, room))
        account.prompt_tokens += prompt.tokens
        account.estimated = prompt.guess is not None
        cached = account.cached_tokens
        end = None
        before = ""
        written = account.completion_tokens
        dropped = False
        async with aclosing(call.teacher.stream(call.engine_id, prompt, params, call.asked.standing)) as pieces:
            async for piece in pieces:
                self._books.take(account, piece)
                account.queue_s = account.queue_s if piece.queue_s is None else piece.queue_s
                account.cached_tokens = max(account.cached_tokens, cached + piece.cached_tokens)
                end = "limit" if dropped else piece.end
                if (piece.token_ids or piece.text) and not dropped:
                    silence.reschedule(None)
                    call.member.answered()
                    call.generation.add(piece)
                left = params.max_tokens - (account.completion_tokens - written)
                if request.stop_at_word_boundary and left > 0 and wraps_up(before, piece.text, left):
                    end = end or "limit"
                    # Where only a server's last word says what it is paid for, its few last tokens are waited for.
                    dropped = account.estimated
                    if not dropped:
                        break
                before = piece.text[-1:] or before
        if end is None:
            raise EngineFailed("the engine ended the answer without saying why")
        limit = FinishReason.BUDGET if budget <= room else FinishReason.LENGTH
        return {"stop": FinishReason.STOP, "string": FinishReason.HANDBACK}.get(end, limit)


def _is_greedy(request: GuidanceRequest) -> bool:
    """Whether what the teacher writes is what is most probable to it. (Where log-probabilities are wanted they are asked for.)"""
    penalised = request.presence_penalty or request.frequency_penalty or request.repetition_penalty != 1
    return request.temperature == 0 and not penalised and request.json_schema is None and not request.logprobs


def _params(request: GuidanceRequest, *, max_tokens: int) -> GenerationParams:
    return GenerationParams(
        **request.sampling_options(),
        max_tokens=max_tokens,
        json_schema=request.json_schema,
        logprobs=request.logprobs,
        stop=(STEP_END,) if request.stop_at_line_end else (),
    )
