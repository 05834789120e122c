"""What must hold whatever strikes, each checked from what a client was sent. A violation is a sentence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.chaos.answers import Answer, Malformed, read
from evaluation.chaos.clients import Outcome
from evaluation.chaos.workload import Behaviour
from shared.echo_text import NotEcho, foreign_nonces, read_words
from shared.protocol.gkt import Mode, Source
from shared.protocol.guidance import ErrorBody

WRITERS = {Source.TEACHER: "t", Source.STUDENT: "s"}
CRASHES = {"internal_error", "engine_failed"}
"""Errors that no fault is a reason for: the edge itself is never broken here."""


class Invariant(StrEnum):
    LOST = "lost"
    """Every request that reached a living edge ends, before its deadline, in a whole answer or an error, both well-formed."""
    MIXED = "mixed"
    """No answer holds anything of another request."""
    PREFIX = "prefix"
    """What the teacher wrote stands where it stood for the student, whole, in order and once; the student goes on from there."""
    COMPLETE = "complete"
    """An answer ends where its writers end it, or at its limit."""
    CRASHED = "crashed"
    """No error says that the edge is broken."""
    RECOVERED = "recovered"
    """Guided answers are back within one breaker period, without anybody's help."""
    IDLE = "idle"
    """Memory, sequences, file handles and tasks return to what they were."""


@dataclass(frozen=True)
class Violation:
    """`outcome` is the request's, where it is of one."""

    invariant: Invariant
    what: str
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Absence:
    """When an edge did not live, from before its end until it was ready again."""

    edge: str
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Scripted:
    """Who writes the words of `shared.echo_text`."""

    teacher: bool = True
    students: frozenset[str] = frozenset()
    """Edges."""


def was_away(outcome: Outcome, absences: Sequence[Absence]) -> bool:
    """Whether its edge did not live all of the time that a request took."""
    return any(
        absence.edge == outcome.ask.edge and absence.from_s <= outcome.ended_s and outcome.sent_s <= absence.to_s
        for absence in absences
    )


def ended(outcome: Outcome) -> Answer | ErrorBody | str:
    """What a request ended in; or in a sentence, how it is lost."""
    if outcome.late:
        return f"it had not ended at its deadline, {len(outcome.body)} bytes had come"
    if outcome.broke is not None or outcome.status is None:
        return f"the connection broke: {outcome.broke}"
    try:
        return read(outcome.status, outcome.body, stream=outcome.ask.stream)
    except Malformed as error:
        return f"malformed: {error}"


def mixed(outcome: Outcome, nonces: Collection[str]) -> str | None:
    """Whether anything that a client was sent, whole or not, is of another request."""
    foreign = foreign_nonces(outcome.body.decode(errors="replace"), outcome.ask.mark.nonce, nonces)
    return f"it holds {', '.join(sorted(foreign))}, which others were asked for" if foreign else None


def misplaced(outcome: Outcome, answer: Answer, scripted: Scripted) -> str | None:
    """Whether a word is missing, comes twice, is changed, or is not of whom the report says."""
    for part in answer.parts:
        known = scripted.teacher if part.source is Source.TEACHER else outcome.ask.edge in scripted.students
        if not known:
            continue
        try:
            words = list(read_words(part.text, part.at))
        except NotEcho as error:
            return f"the {part.source}'s part: {error}"
        for word in words:
            if word.nonce != outcome.ask.mark.nonce:
                return f"the {part.source} wrote {word.nonce} at {word.at}"
            if word.writer != WRITERS[part.source] or word.said_at != word.at:
                return f"what the {part.source} wrote at {word.at} is {word.writer}'s word of {word.said_at}"
    return None


def incomplete(outcome: Outcome, answer: Answer, scripted: Scripted) -> str | None:
    """Whether an answer ends early, or goes on too long."""
    ask = outcome.ask
    if answer.finish == "length":
        return (
            f"it ends at its length, with {answer.tokens} of {ask.max_tokens}"
            if answer.tokens < ask.max_tokens
            else None
        )
    if not scripted.teacher or ask.edge not in scripted.students:
        return None
    written = answer.text.count(";")
    return f"it ends by itself with {written} of {ask.mark.words} words" if written != ask.mark.words else None


def crashed(error: ErrorBody) -> str | None:
    return f"{error.error.code}: {error.error.message}" if error.error.code in CRASHES else None


@dataclass(frozen=True)
class Judged:
    """A request's end: `kind` is `whole`, `degraded`, `error`, `lost`, `away`, `vanished` or `never_read`."""

    outcome: Outcome
    kind: str
    violations: Sequence[Violation] = ()
    error: str | None = None
    """Its code."""
    fallback: str | None = None
    """Why an answer is degraded."""


def judge(outcome: Outcome, nonces: Collection[str], absences: Sequence[Absence], scripted: Scripted) -> Judged:
    """Check everything that holds for one request."""
    found: list[Violation] = []

    def note(invariant: Invariant, what: str | None) -> None:
        if what:
            found.append(Violation(invariant, what, outcome))

    note(Invariant.MIXED, mixed(outcome, nonces))
    if outcome.ask.behaviour is Behaviour.NEVER_READS:
        return Judged(outcome, "never_read", found)
    if outcome.ask.behaviour is Behaviour.VANISHES and outcome.status is None and outcome.broke is None:
        return Judged(outcome, "vanished", found)
    end = ended(outcome)
    if isinstance(end, str):
        if was_away(outcome, absences):
            return Judged(outcome, "away", found)
        note(Invariant.LOST, end)
        return Judged(outcome, "lost", found)
    if isinstance(end, ErrorBody):
        note(Invariant.CRASHED, crashed(end))
        return Judged(outcome, "error", found, end.error.code)
    note(Invariant.PREFIX, misplaced(outcome, end, scripted))
    note(Invariant.COMPLETE, incomplete(outcome, end, scripted))
    fallback = end.report.fallback
    return Judged(outcome, "degraded" if fallback else "whole", found, fallback=fallback)


def guided(outcome: Outcome) -> bool:
    """Whether an answer is whole, and has the guidance that it asked for; in mode `on_demand` the student may need none."""
    end = ended(outcome)
    if not isinstance(end, Answer) or end.report.fallback:
        return False
    return outcome.ask.mode in {Mode.OFF, Mode.ON_DEMAND} or end.report.teacher is not None
