"""Invariants that hold under every fault, checked from the bytes that clients received. A violation is a sentence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.chaos.answers import MalformedAnswer, ParsedAnswer, parse
from evaluation.chaos.clients import Response
from evaluation.chaos.workload import Behaviour
from shared.echo_text import NotEcho, foreign_nonces, read_words
from shared.protocol.gkt import Mode, Source
from shared.protocol.guidance import ErrorBody

WRITERS = {Source.TEACHER: "t", Source.STUDENT: "s"}
CRASHES = {"internal_error", "engine_failed"}
"""Error codes that no fault justifies, because no fault breaks a running edge."""


class Invariant(StrEnum):
    LOST = "lost"
    """Every request to a living edge ends before its deadline, in a complete answer or an error, both well-formed."""
    MIXED = "mixed"
    """No answer contains anything of another request."""
    PREFIX = "prefix"
    """The teacher's text is complete, in order and unique as reported; the student continues from its end."""
    COMPLETE = "complete"
    """An answer ends where its writers end it, or at its limit."""
    CRASHED = "crashed"
    """No error reports that the edge is broken."""
    RECOVERED = "recovered"
    """Guided answers are back within one breaker period, without intervention."""
    IDLE = "idle"
    """Memory, sequences, file handles and tasks return to what they were."""


@dataclass(frozen=True)
class Violation:
    """`response` is set if the violation concerns one request."""

    invariant: Invariant
    what: str
    response: Response | None = None


@dataclass(frozen=True)
class Downtime:
    """The time from the kill of a service until it was ready again."""

    service: str
    from_s: float
    to_s: float


@dataclass(frozen=True)
class ScriptedModels:
    """Services whose model is scripted (`shared.echo_text`)."""

    teacher: bool = True
    edges: frozenset[str] = frozenset()


@dataclass(frozen=True)
class JudgedRequest:
    """A request's end: `kind` is `whole`, `degraded`, `error`, `lost`, `away`, `vanished` or `never_read`."""

    response: Response
    kind: str
    violations: Sequence[Violation] = ()
    error: str | None = None
    """Code of the error."""
    fallback: str | None = None
    """Reason for which an answer is degraded."""


def judge(
    response: Response, nonces: Collection[str], downtimes: Sequence[Downtime], scripted: ScriptedModels
) -> JudgedRequest:
    """Check all invariants of one request."""
    violations: list[Violation] = []

    def check(invariant: Invariant, problem: str | None) -> None:
        if problem:
            violations.append(Violation(invariant, problem, response))

    check(Invariant.MIXED, _foreign_text(response, nonces))
    behaviour = response.request.behaviour
    if behaviour is Behaviour.NEVER_READS:
        return JudgedRequest(response, "never_read", violations)
    if behaviour is Behaviour.VANISHES and response.status is None and response.connection_error is None:
        return JudgedRequest(response, "vanished", violations)
    end = _end(response)
    if isinstance(end, str):
        if _edge_was_down(response, downtimes):
            return JudgedRequest(response, "away", violations)
        check(Invariant.LOST, end)
        return JudgedRequest(response, "lost", violations)
    if isinstance(end, ErrorBody):
        code = end.error.code
        check(Invariant.CRASHED, f"{code}: {end.error.message}" if code in CRASHES else None)
        return JudgedRequest(response, "error", violations, code)
    check(Invariant.PREFIX, _wrong_word(response, end, scripted))
    check(Invariant.COMPLETE, _wrong_length(response, end, scripted))
    fallback = end.report.fallback
    return JudgedRequest(response, "degraded" if fallback else "whole", violations, fallback=fallback)


def is_guided(response: Response) -> bool:
    """Return True if an answer is complete and has the guidance it requested. In mode `on_demand` it may have needed none."""
    end = _end(response)
    if not isinstance(end, ParsedAnswer) or end.report.fallback:
        return False
    return response.request.mode in {Mode.OFF, Mode.ON_DEMAND} or end.report.teacher is not None


def _end(response: Response) -> ParsedAnswer | ErrorBody | str:
    """Return the answer or error of a request, or a sentence that describes its loss."""
    if response.late:
        return f"the request had not ended at its deadline, after {len(response.body)} bytes"
    if response.connection_error is not None or response.status is None:
        return f"the connection broke: {response.connection_error}"
    try:
        return parse(response.status, response.body, stream=response.request.stream)
    except MalformedAnswer as error:
        return f"malformed: {error}"


def _edge_was_down(response: Response, downtimes: Sequence[Downtime]) -> bool:
    edge, sent_s, ended_s = response.request.edge, response.sent_s, response.ended_s
    return any(down.service == edge and down.from_s <= ended_s and sent_s <= down.to_s for down in downtimes)


def _foreign_text(response: Response, nonces: Collection[str]) -> str | None:
    own = response.request.mark.nonce
    foreign = foreign_nonces(response.body.decode(errors="replace"), own, nonces)
    return f"the response contains {', '.join(sorted(foreign))} of other requests" if foreign else None


def _wrong_word(response: Response, answer: ParsedAnswer, scripted: ScriptedModels) -> str | None:
    """Describe the first word that is missing, repeated, changed, or not from the source that the report names."""
    edge, nonce = response.request.edge, response.request.mark.nonce
    for run in answer.runs:
        if not (scripted.teacher if run.source is Source.TEACHER else edge in scripted.edges):
            continue
        try:
            words = list(read_words(run.text, run.at))
        except NotEcho as error:
            return f"the {run.source}'s text: {error}"
        for word in words:
            if word.nonce != nonce:
                return f"the {run.source} wrote {word.nonce} at {word.at}"
            if word.writer != WRITERS[run.source] or word.claimed_at != word.at:
                return f"the {run.source}'s text at {word.at} is the word of {word.writer} for {word.claimed_at}"
    return None


def _wrong_length(response: Response, answer: ParsedAnswer, scripted: ScriptedModels) -> str | None:
    """Describe an answer that ended too early or too late."""
    request = response.request
    if answer.finish == "length":
        short = answer.tokens < request.max_tokens
        return f"it ends by its length, with {answer.tokens} of {request.max_tokens} tokens" if short else None
    if not scripted.teacher or request.edge not in scripted.edges:
        return None
    words = answer.text.count(";")
    return f"it ends with {words} of {request.mark.words} words" if words != request.mark.words else None
