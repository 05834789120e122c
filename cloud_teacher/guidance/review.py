"""What the teacher thinks of a step that somebody else has written: one prefill, and where its doubt begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloud_teacher.teachers.base import REPLACEMENT, OutputChunk, Prompt, Reviewer, SchedulingHints, Scores
from shared.protocol.guidance import ReviewRequest, Usage, Verdict


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A verdict, what the teacher would write at its doubt, and how long it waited in the engine."""

    verdict: Verdict
    first: OutputChunk | None = None
    """Its first word instead, as a greedy teacher writes it, where the scores tell."""
    queue_s: float | None = None


async def review(
    teacher: Reviewer,
    request: ReviewRequest,
    engine_id: str,
    *,
    prompt: Prompt,
    ids: list[int],
    hints: SchedulingHints,
) -> Reviewed:
    """Score a step behind the answer so far, token by token. Raises EngineFailed.

    `prompt` has that answer, `ids` are those of answer and step as one text.
    """
    nothing = Usage(prompt_tokens=0, completion_tokens=0)
    text = request.answer + request.draft
    # The step's own tokens: the last one of what was written before may now be a longer one.
    first = common_length(prompt.answer, ids)
    answer = [*ids, teacher.end_id] if request.draft_is_final else ids
    scored = len(answer) - first
    # Where the context ends nobody can go on: what cannot be read is let through.
    asked = prompt.conversation + answer
    if not scored or len(asked) >= teacher.max_model_len:
        return Reviewed(Verdict(accepted_chars=len(request.draft), accepted=True, scored_tokens=0, usage=nothing))
    scores = await teacher.score(f"{engine_id}.review", asked, len(prompt.conversation) + first, hints)
    at = first_rejected(scores, request.acceptance_threshold)
    kept, word = len(request.draft), None
    if at is not None:
        kept = max(0, kept_chars(text, teacher.decode(ids[: first + at])) - len(request.answer))
        if scores.choices:
            word = first_word(teacher, ids[: first + at], text[: len(request.answer) + kept], scores.choices[at])
    usage = Usage(prompt_tokens=len(asked), cached_tokens=scores.cached_tokens, completion_tokens=0)
    verdict = Verdict(accepted_chars=kept, accepted=at is None, scored_tokens=scored, usage=usage)
    return Reviewed(verdict, word, scores.queue_s)


def first_word(teacher: Reviewer, ids: list[int], text: str, choice: int | None) -> OutputChunk | None:
    """The teacher's `choice` behind the ids of a text. None where it is not known, or adds no whole characters to that text."""
    if choice is None:
        return None
    if choice == teacher.end_id:
        return OutputChunk(text="", token_ids=[], end="stop")
    told = teacher.decode([*ids, choice])
    if not told.startswith(text) or len(told) == len(text) or REPLACEMENT in told[len(text) :]:
        return None
    return OutputChunk(text=told[len(text) :], token_ids=[choice])


def first_rejected(scores: Scores, acceptance_threshold: float) -> int | None:
    """Index of the first token that the teacher rejects: below the threshold, and not its own choice. None if it accepts all."""
    least = math.log(acceptance_threshold) if acceptance_threshold > 0 else -math.inf
    pairs = zip(scores.logprobs, scores.ranks, strict=True)
    return next((at for at, (logprob, rank) in enumerate(pairs) if rank > 1 and logprob < least), None)


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items two sequences begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def kept_chars(text: str, beginning: str) -> int:
    """How much of a text its first tokens hold, whose own text is `beginning`: half a character at their end does not count."""
    return common_length(text, beginning)
