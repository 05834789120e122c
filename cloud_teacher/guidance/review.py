"""Review of a draft: one prefill scores it, and the teacher accepts it up to the first rejected token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloud_teacher.teachers.base import REPLACEMENT, OutputChunk, Prompt, Reviewer, SchedulingHints, Scores
from shared.protocol.guidance import ReviewRequest, Usage, Verdict


@dataclass(frozen=True, slots=True)
class ReviewResult:
    """A verdict, the teacher's own token at the rejected place, and the time in the engine's queue."""

    verdict: Verdict
    correction: OutputChunk | None = None
    """Token that a greedy teacher writes instead of the rejected one, if the scores contain it."""
    queue_s: float | None = None


async def review(
    teacher: Reviewer,
    request: ReviewRequest,
    engine_id: str,
    *,
    prompt: Prompt,
    ids: list[int],
    hints: SchedulingHints,
) -> ReviewResult:
    """Score a draft behind the answer, token by token. Raises EngineFailed.

    `prompt` ends with the answer; `ids` are those of answer and draft as one text.
    """
    nothing = Usage(prompt_tokens=0, completion_tokens=0)
    text = request.answer + request.draft
    # The draft's own tokens. The answer's last token may have become a longer one.
    first = common_length(prompt.answer, ids)
    answer = [*ids, teacher.end_id] if request.draft_is_final else ids
    scored = len(answer) - first
    # A draft that does not fit into the context is accepted, as no model could continue behind it.
    prompt_ids = prompt.conversation + answer
    if not scored or len(prompt_ids) >= teacher.max_model_len:
        return ReviewResult(Verdict(accepted_chars=len(request.draft), accepted=True, scored_tokens=0, usage=nothing))
    scores = await teacher.score(f"{engine_id}.review", prompt_ids, len(prompt.conversation) + first, hints)
    rejected = first_rejected(scores, request.acceptance_threshold)
    accepted_chars, correction = len(request.draft), None
    if rejected is not None:
        accepted_ids = ids[: first + rejected]
        accepted_chars = max(0, common_length(text, teacher.decode(accepted_ids)) - len(request.answer))
        if scores.choices:
            accepted_text = text[: len(request.answer) + accepted_chars]
            correction = correct(teacher, accepted_ids, accepted_text, scores.choices[rejected])
    usage = Usage(prompt_tokens=len(prompt_ids), cached_tokens=scores.cached_tokens, completion_tokens=0)
    verdict = Verdict(accepted_chars=accepted_chars, accepted=rejected is None, scored_tokens=scored, usage=usage)
    return ReviewResult(verdict, correction, scores.queue_s)


def correct(teacher: Reviewer, ids: list[int], text: str, choice: int | None) -> OutputChunk | None:
    """Return the teacher's `choice` behind a text as a chunk; None if it is unknown or adds no complete character."""
    if choice is None:
        return None
    if choice == teacher.end_id:
        return OutputChunk(text="", token_ids=[], end="stop")
    corrected = teacher.decode([*ids, choice])
    added = corrected[len(text) :]
    if not corrected.startswith(text) or not added or REPLACEMENT in added:
        return None
    return OutputChunk(text=added, token_ids=[choice])


def first_rejected(scores: Scores, acceptance_threshold: float) -> int | None:
    """Return the index of the first token below the threshold that is not the teacher's top choice, or None."""
    min_logprob = math.log(acceptance_threshold) if acceptance_threshold > 0 else -math.inf
    pairs = zip(scores.logprobs, scores.ranks, strict=True)
    return next((index for index, (logprob, rank) in enumerate(pairs) if rank > 1 and logprob < min_logprob), None)


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Return the length of the common beginning of two sequences."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
