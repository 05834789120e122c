"""The use case: a request comes in, is answered with events, and is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cloud_teacher.accounting.usage import CLIENT_DISCONNECTED, Account, Books, Subject
from cloud_teacher.admission.admission import Admission
from cloud_teacher.auth.caller import Caller
from cloud_teacher.guidance.generation import Generation
from cloud_teacher.guidance.prepare import Asked
from cloud_teacher.guidance.response_cache import Sharing
from cloud_teacher.guidance.tracing import end, request_span
from cloud_teacher.guidance.writer import Writer
from cloud_teacher.teachers.base import Piece
from cloud_teacher.teachers.pool import Teachers
from shared.errors import BudgetTooLarge, EngineFailed, GktError, InternalError, StoreFailed, UnknownTemplate
from shared.observability.telemetry import OFF, Span, Telemetry
from shared.prompting.templates import Templates
from shared.protocol.guidance import (
    Done,
    Event,
    Failure,
    Guidance,
    GuidanceRequest,
    ReviewRequest,
    Start,
    Usage,
    Verdict,
)

logger = logging.getLogger("gkt.cloud")

NO_TRACE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a single request may ask for, in the teacher's tokens."""

    max_prompt_tokens: int
    max_guidance_tokens: int


@dataclass(slots=True)
class Reading:
    """How one request's own stream goes."""

    request_id: str
    caller: Caller
    arrived_s: float = field(default_factory=time.monotonic)
    outcome: str = CLIENT_DISCONNECTED
    span: Span = field(default_factory=Span)
    generation: Generation | None = None
    account: Account | None = None
    """The request's own, which is the generation's unless another request has it written."""
    to_close: Account | None = None
    """Of what it was told that another request had written, until that is written down."""


class GuidanceService:
    """Answers guidance requests, each with one of its teachers."""

    def __init__(
        self,
        teachers: Teachers,
        *,
        templates: Templates,
        limits: Limits,
        admission: Admission,
        books: Books,
        sharing: Sharing | None = None,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._teachers = teachers
        self._templates = templates
        self._limits = limits
        self._admission = admission
        self._books = books
        self._sharing = sharing or Sharing()
        self._telemetry = telemetry
        self._writer = Writer(teachers, max_prompt_tokens=limits.max_prompt_tokens, admission=admission, books=books)
        self._writing: set[asyncio.Task[None]] = set()

    async def answer(
        self, request: GuidanceRequest, *, request_id: str, caller: Caller, trace: Mapping[str, str] = NO_TRACE
    ) -> AsyncGenerator[Event, None]:
        """The events of one request, a review among them. All that can be wrong with it is raised before the first event.

        After `Start` every error is an event: exactly one of `Done` and `Failure` comes last, unless the reader leaves,
        which closes the generator and with it the engine's work. `trace` has the caller's W3C headers.

        Raises PromptTooLong, BudgetTooLarge, UnknownTemplate, UnknownModel, InvalidRequest, Overloaded, TooManyRequests,
        EngineFailed, NotReady, StoreFailed.
        """
        reading = Reading(request_id, caller)
        named = request.model or self._teachers.first.name
        reading.span = request_span(
            self._telemetry, request, model=named, request_id=request_id, key=caller.name, trace=trace
        )
        try:
            template = self._templates.get(request.template)
            if template.takes_answer:
                raise UnknownTemplate(f"template {template.name!r} is the student's, no guidance", param="template")
            self._check_budget(request.max_guidance_tokens)
            self._teachers.in_order(request.model)
            asked = Asked(
                request, template, caller, self._sharing.cache_salt(caller, request.cache_salt), reading.span.headers
            )
            with self._admission.request(caller), self._begin(asked, reading) as (generation, account):
                author = await generation.until_admitted()
                await self._pay(generation, account, reading)
                reading.span.event("admitted")
                yield Start(
                    request_id=request_id,
                    model=author.model,
                    template=template.identity,
                    tokenizer=author.fingerprint,
                )
                try:
                    begun = False
                    async for item in generation.read():
                        if isinstance(item, Verdict):
                            yield item
                        else:
                            account.told(item.count)
                            if not begun:
                                reading.span.event("first_token")
                            yield _guidance(item, None if begun else generation.first_usage)
                            begun = True
                    yield await self._done(generation, account, reading)
                except Exception as error:  # noqa: BLE001 - 200 is sent: whatever it is has to become an event
                    yield self._failure(error, reading)
        except GktError as error:
            _warn(error, reading)
            reading.outcome = error.code
            reading.span.fail(error.code)
            raise
        finally:
            self._close(reading)

    async def close(self) -> None:
        """Stop what is still written, and have it accounted for."""
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _check_budget(self, budget: int) -> None:
        most = self._limits.max_guidance_tokens
        if budget > most:
            raise BudgetTooLarge(
                f"{budget} guidance tokens were asked for; {most} is the most", param="max_guidance_tokens"
            )

    @contextmanager
    def _begin(self, asked: Asked, reading: Reading) -> Generator[tuple[Generation, Account]]:
        """What the engine does for a request, which is one of its readers; and the request's own account.

        That is the generation's, unless another request has it written.
        """
        kind = "review" if isinstance(asked.request, ReviewRequest) else "guidance"
        subject = Subject(
            request_id=reading.request_id,
            key=asked.caller.name,
            kind=kind,
            model=asked.request.model or self._teachers.first.name,
            template=asked.template.identity,
        )
        account = Account(subject, arrived_s=reading.arrived_s)
        key = self._sharing.key(asked)
        found = self._sharing.find(key, asked) if key else None
        if found:
            generation, account.reused = found
        else:
            generation = Generation(account)
            self._start(generation, asked, key)
        reading.generation, reading.account = generation, account
        with generation.reader():
            yield generation, account

    def _start(self, generation: Generation, asked: Asked, key: bytes | None) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._writing.discard(task)
            if key:
                self._sharing.ended(key, generation)

        if key:
            self._sharing.begun(key, generation)
        task = generation.start(lambda new: self._writer.write(new, asked))
        self._writing.add(task)
        task.add_done_callback(ended)

    async def _pay(self, generation: Generation, account: Account, reading: Reading) -> None:
        """Open the account of a request that another one has written. What it can cost is set aside, if that is anything."""
        if account.reused is None:
            return
        account.turn_to(generation.account.subject.model, generation.account.prices)
        most_nano_usd = self._books.reused_nano_usd(generation.most, account.prices) if generation.most else 0
        if most_nano_usd:
            account.reservation = await self._admission.reserve(reading.caller, account, 0, most_nano_usd)
        reading.to_close = account

    async def _done(self, generation: Generation, account: Account, reading: Reading) -> Done:
        reason, usage = generation.reason, generation.account.usage
        assert reason is not None  # noqa: S101 - it was read to its end
        cost_usd = self._books.cost_usd(generation.account)
        if account.reused:
            account.outcome, reading.to_close = reason, None
            cost_usd = self._books.reused_cost_usd(usage, account.prices)
            await self._books.close_reused(account, usage.prompt_tokens)
        reading.outcome = reason
        return Done(
            finish_reason=reason, usage=usage, timing=account.timing(), cost_usd=cost_usd, reused=account.reused
        )

    def _failure(self, error: Exception, reading: Reading) -> Failure:
        if not isinstance(error, GktError):
            logger.error("%s crashed", reading.request_id, exc_info=error)
            error = InternalError("something went wrong here; the log has it under this request's id")
        _warn(error, reading)
        reading.outcome = error.code
        reading.span.fail(error.code)
        return Failure(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )

    def _close(self, reading: Reading) -> None:
        took_s = time.monotonic() - reading.arrived_s
        if reading.to_close and reading.generation:
            reading.to_close.outcome = reading.outcome
            self._books.close_reused(reading.to_close, reading.generation.account.prompt_tokens)
        self._books.metrics.requests.labels(reading.outcome).inc()
        self._books.metrics.duration.observe(took_s)
        end(reading.span, reading.generation, reading.account, reading.outcome)
        account = reading.generation.account if reading.generation else None
        logger.info(
            "%s by %s: %s, %d prompt tokens (%d cached), %d written, %.0f ms",
            reading.request_id,
            reading.caller.name,
            reading.outcome,
            account.prompt_tokens if account else 0,
            account.cached_tokens if account else 0,
            account.completion_tokens if account else 0,
            took_s * 1000,
        )


def _warn(error: GktError, reading: Reading) -> None:
    """Of what the operator has to mend. Such messages are ours and hold no text of anyone."""
    if isinstance(error, EngineFailed | StoreFailed):
        logger.warning("%s failed: %s", reading.request_id, error.message)


def _guidance(piece: Piece, usage: Usage | None) -> Guidance:
    """The next words; the first ones with the usage so far."""
    return Guidance(
        text=piece.text,
        token_ids=list(piece.token_ids),
        logprobs=None if piece.logprobs is None else list(piece.logprobs),
        usage=usage,
        tokens=piece.tokens,
    )
