"""The use case: render the conversation, let the teacher begin the answer, account for it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from cloud_teacher.admission import Admission
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.review import review
from cloud_teacher.teacher import Piece, Sampling, Teacher
from shared.errors import BudgetTooLarge, EngineFailed, GktError, InternalError, PromptTooLong, UnknownTemplate
from shared.prices import Prices
from shared.templates import Templates
from shared.wire import (
    Done,
    Event,
    Failure,
    FinishReason,
    Guidance,
    GuidanceRequest,
    Message,
    ReviewRequest,
    Start,
    Timing,
    Usage,
)
from shared.words import wraps_up

logger = logging.getLogger("gkt.cloud")

LONG_TEXT_CHARS = 20_000
"""Longer conversations are tokenised beside the event loop, so that the streams of others don't wait for it."""

STEP_END = "\n"
GONE = "gone"
"""Outcome of a request whose client left before the end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a single request may ask for, in the teacher's tokens."""

    max_prompt_tokens: int
    max_guidance_tokens: int


@dataclass(slots=True)
class Account:
    """What one request took so far. Times are of `time.monotonic`."""

    arrived_s: float
    prompt_tokens: int = 0
    """Of all that the engine was asked: a review that ends in guidance asks twice."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    outcome: str = field(default=GONE)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
        )

    def timing(self) -> Timing:
        """In milliseconds, as of now."""
        return Timing(
            queue_ms=None if self.queue_s is None else round(self.queue_s * 1000, 3),
            first_token_ms=None if self.first_s is None else round((self.first_s - self.arrived_s) * 1000, 3),
            total_ms=round((time.monotonic() - self.arrived_s) * 1000, 3),
        )


class GuidanceService:
    """Answers guidance requests with one teacher."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        templates: Templates,
        limits: Limits,
        admission: Admission,
        metrics: CloudMetrics,
        prices: Prices | None = None,
    ) -> None:
        self._teacher = teacher
        self._templates = templates
        self._limits = limits
        self._admission = admission
        self._metrics = metrics
        self._prices = prices
        self._numbers = itertools.count(1)

    async def answer(self, request: GuidanceRequest, *, request_id: str, caller: str) -> AsyncGenerator[Event, None]:
        """The events of one request, a review among them. All that can be wrong with it is raised before the first event.

        After `Start` every error is an event: exactly one of `Done` and `Failure` comes last, unless the reader leaves,
        which closes the generator and with it the engine's work.

        Raises PromptTooLong, BudgetTooLarge, UnknownTemplate, InvalidRequest, Overloaded, TooManyRequests, EngineFailed.
        """
        account = Account(arrived_s=time.monotonic())
        try:
            template = self._templates.get(request.template)
            if template.takes_draft:
                raise UnknownTemplate(f"template {template.name!r} is the student's, no guidance", param="template")
            self._check_budget(request.max_guidance_tokens)
            self._teacher.check_health()
            if request.json_schema is not None:
                await asyncio.to_thread(self._teacher.check_schema, request.json_schema)
            prompt_ids = await self._encode(template.apply(request.messages), request.answer)
            with self._admission.admit(caller):
                yield Start(
                    request_id=request_id,
                    model=self._teacher.model,
                    template=template.identity,
                    tokenizer=self._teacher.fingerprint,
                )
                try:
                    async with aclosing(self._write(request, request_id, prompt_ids, account)) as events:
                        async for event in events:
                            yield event
                except Exception as error:  # noqa: BLE001 - 200 is sent: whatever it is has to become an event
                    yield self._failure(error, request_id, account)
        except GktError as error:
            account.outcome = error.code
            raise
        finally:
            self._close_account(account, request_id, caller)

    def _check_budget(self, budget: int) -> None:
        most = self._limits.max_guidance_tokens
        if budget > most:
            raise BudgetTooLarge(
                f"{budget} guidance tokens were asked for; {most} is the most", param="max_guidance_tokens"
            )

    async def _encode(self, messages: list[Message], answer: str) -> list[int]:
        """The conversation's ids.

        Raises PromptTooLong where no token would fit behind them and what is written of the answer, or they are beyond the limit.
        """

        def encode() -> tuple[list[int], int]:
            return self._teacher.encode(messages), len(self._teacher.encode_answer(answer))

        is_long = sum(len(message.content) for message in messages) + len(answer) > LONG_TEXT_CHARS
        ids, answer_tokens = await asyncio.to_thread(encode) if is_long else encode()
        most = min(self._limits.max_prompt_tokens, self._teacher.max_model_len - 1)
        if len(ids) + answer_tokens > most:
            raise PromptTooLong(
                f"the prompt has {len(ids) + answer_tokens} tokens; {most} is the most", param="messages"
            )
        return ids

    async def _write(
        self, request: GuidanceRequest, request_id: str, prompt_ids: list[int], account: Account
    ) -> AsyncGenerator[Event, None]:
        """What follows the start: of a review the verdict, and guidance where that leaves room for it."""
        # Two requests may come with the same id; the engine wants them apart.
        engine_id = f"{request_id}.{next(self._numbers)}"
        answer = request.answer
        if isinstance(request, ReviewRequest):
            reviewed = await review(self._teacher, request, engine_id, prompt_ids)
            account.prompt_tokens += reviewed.verdict.usage.prompt_tokens
            account.cached_tokens += reviewed.verdict.usage.cached_tokens
            account.queue_s = reviewed.queue_s
            yield reviewed.verdict
            if reviewed.verdict.accepted:
                reason = FinishReason.STOP if request.ends else FinishReason.STEP
                account.outcome = reason
                yield self._done(reason, account)
                return
            answer += request.step[: reviewed.verdict.accepted_chars]
        ids = prompt_ids + self._teacher.encode_answer(answer)
        async with aclosing(self._guide(request, engine_id, ids, account)) as events:
            async for event in events:
                yield event

    async def _guide(
        self, request: GuidanceRequest, engine_id: str, ids: list[int], account: Account
    ) -> AsyncGenerator[Event, None]:
        room = self._teacher.max_model_len - len(ids)
        budget = request.max_guidance_tokens
        sampling = Sampling(
            max_tokens=min(budget, room),
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            repetition_penalty=request.repetition_penalty,
            json_schema=request.json_schema,
            seed=request.seed,
            logprobs=request.logprobs,
            stop=(STEP_END,) if request.until_step else (),
        )
        account.prompt_tokens += len(ids)
        cached = account.cached_tokens
        end = None
        before = ""
        async with aclosing(self._teacher.stream(engine_id, ids, sampling)) as pieces:
            async for piece in pieces:
                self._take(piece, account)
                account.cached_tokens = max(account.cached_tokens, cached + piece.cached_tokens)
                end = piece.end
                if piece.token_ids or piece.text:
                    began = account.completion_tokens == len(piece.token_ids)
                    yield Guidance(
                        text=piece.text,
                        token_ids=list(piece.token_ids),
                        logprobs=None if piece.logprobs is None else list(piece.logprobs),
                        usage=account.usage if began else None,
                    )
                left = sampling.max_tokens - account.completion_tokens
                if request.whole_words and left > 0 and wraps_up(before, piece.text, left):
                    end = end or "limit"
                    break
                before = piece.text[-1:] or before
        if end is None:
            raise EngineFailed("the engine ended the answer without saying why")
        limit = FinishReason.BUDGET if budget <= room else FinishReason.LENGTH
        reason = {"stop": FinishReason.STOP, "string": FinishReason.STEP}.get(end, limit)
        account.outcome = reason
        yield self._done(reason, account)

    def _done(self, reason: FinishReason, account: Account) -> Done:
        cost = self._cost_usd(account)
        return Done(finish_reason=reason, usage=account.usage, timing=account.timing(), cost_usd=cost)

    def _take(self, piece: Piece, account: Account) -> None:
        now = time.monotonic()
        account.completion_tokens += len(piece.token_ids)
        account.queue_s = account.queue_s if piece.queue_s is None else piece.queue_s
        if account.last_s is None:
            account.first_s = now
            self._metrics.first_token.observe(now - account.arrived_s)
        else:
            self._metrics.inter_token.observe(now - account.last_s)
        account.last_s = now

    def _failure(self, error: Exception, request_id: str, account: Account) -> Failure:
        if not isinstance(error, GktError):
            logger.error("%s crashed", request_id, exc_info=error)
            error = InternalError("something went wrong here; the log has it under this request's id")
        account.outcome = error.code
        return Failure(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )

    def _cost_usd(self, account: Account) -> float | None:
        return self._prices.cost_usd(account.usage) if self._prices else None

    def _close_account(self, account: Account, request_id: str, caller: str) -> None:
        timing = account.timing()
        self._metrics.requests.labels(account.outcome).inc()
        self._metrics.duration.observe(timing.total_ms / 1000)
        self._metrics.count(account.usage, self._cost_usd(account))
        logger.info(
            "%s by %s: %s, %d prompt tokens (%d cached), %d written, %.0f ms",
            request_id,
            caller,
            account.outcome,
            account.prompt_tokens,
            account.cached_tokens,
            account.completion_tokens,
            timing.total_ms,
        )
