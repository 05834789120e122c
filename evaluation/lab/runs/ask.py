"""One question under one arm: all requests that it takes, as one answer with the cost of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from evaluation.lab.arms import ROUTE_TOKENS, STUDENT, TEACHER, Arm
from evaluation.lab.results.rows import SideTokens
from evaluation.lab.runs.answer import Answer
from evaluation.lab.runs.edge_client import LabEdge
from shared.protocol.gkt import Segment, Source
from shared.protocol.guidance import Message

TURN_BREAK = "\n\n"
"""Between the answers of a conversation, in the one output that its row has."""


async def ask(
    edge: LabEdge,
    arm: Arm,
    messages: Sequence[Message],
    *,
    question_id: str,
    max_tokens: int,
    seed: int,
    follow_ups: Sequence[str] = (),
) -> Answer:
    """The answer to a conversation, and to what the user says next in it. Raises RequestFailed, EdgeGone."""
    whole = await _turn(edge, arm, messages, question_id=question_id, max_tokens=max_tokens, seed=seed)
    said, last = list(messages), whole
    for text in follow_ups:
        said += [Message(role="assistant", content=last.text), Message(role="user", content=text)]
        last = await _turn(edge, arm, said, question_id=question_id, max_tokens=max_tokens, seed=seed)
        whole = replace(
            _together(whole, last),
            text=whole.text + TURN_BREAK + last.text,
            segments=[*_with_break(whole.segments), *last.segments],
            first_token_s=whole.first_token_s,
        )
    return whole


async def _turn(
    edge: LabEdge, arm: Arm, messages: Sequence[Message], *, question_id: str, max_tokens: int, seed: int
) -> Answer:
    request = arm.request(question_id, seed)
    answer = partial(edge.answer, seed=seed, arm=arm.text)
    if arm.kind == "naive":
        return await _naive(answer, messages, request, arm.values["tokens"], max_tokens=max_tokens)
    if not arm.two_steps:
        return await answer(messages, request, max_tokens=max_tokens)
    first_tokens = min(max_tokens, arm.values.get("tokens", ROUTE_TOKENS)) if arm.kind == "route" else max_tokens
    first = await answer(messages, request, max_tokens=first_tokens, logprobs=True)
    confidence_threshold = first.confidence >= arm.values["confidence_threshold"]
    if confidence_threshold and (first.finish == "stop" or first_tokens == max_tokens):
        # Nobody sees a word before it is known whose it will be.
        return replace(first, first_token_s=first.total_s)
    model = STUDENT if confidence_threshold else TEACHER
    second = await answer(messages, {"model": model}, max_tokens=max_tokens)
    return _together(first, second)


async def _naive(
    answer: Callable[..., Awaitable[Answer]],
    messages: Sequence[Message],
    request: Mapping[str, Any],
    tokens: int,
    *,
    max_tokens: int,
) -> Answer:
    """What thirty lines around two servers do: the teacher's first tokens as they are cut, then those as a message of the
    assistant's, behind which another server answers.
    """
    began = await answer(messages, request, max_tokens=min(tokens, max_tokens))
    if began.finish == "stop" or tokens >= max_tokens:
        return began
    said = [*messages, Message(role="assistant", content=began.text)]
    ended = await answer(said, {"model": STUDENT}, max_tokens=max_tokens - tokens)
    return replace(
        _together(began, ended),
        text=began.text + ended.text,
        segments=[*began.segments, *ended.segments],
        first_token_s=began.first_token_s,
    )


def _together(first: Answer, second: Answer) -> Answer:
    """The second answer, with what both cost; its times count from the first one's start."""
    return replace(
        second,
        teacher=_sum(first.teacher, second.teacher),
        student=_sum(first.student, second.student),
        first_token_s=None if second.first_token_s is None else first.total_s + second.first_token_s,
        total_s=first.total_s + second.total_s,
        template=second.template or first.template,
        fallback=second.fallback or first.fallback,
        teacher_model=second.teacher_model or first.teacher_model,
        bytes_sent=first.bytes_sent + second.bytes_sent,
        bytes_received=first.bytes_received + second.bytes_received,
    )


def _sum(one: SideTokens, other: SideTokens) -> SideTokens:
    return SideTokens(
        prompt=one.prompt + other.prompt,
        cached=one.cached + other.cached,
        output=one.output + other.output,
        calls=one.calls + other.calls,
    )


def _with_break(segments: Sequence[Segment]) -> list[Segment]:
    """Segments of a turn, the last with the break behind it."""
    if not segments:
        return [Segment(source=Source.STUDENT, chars=len(TURN_BREAK), tokens=0)]
    last = segments[-1]
    return [*segments[:-1], last.model_copy(update={"chars": last.chars + len(TURN_BREAK)})]
