"""One question under one arm: all its requests, as one answer with the cost of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from evaluation.lab.arms import ROUTE_PROBE_TOKENS, STUDENT, TEACHER, Arm
from evaluation.lab.results.rows import SideTokens
from evaluation.lab.runs.answer import EdgeAnswer
from evaluation.lab.runs.edge_client import LabEdge
from shared.protocol.gkt import Segment, Source
from shared.protocol.guidance import Message

TURN_BREAK = "\n\n"
"""Separator of the answers of a conversation in the one output of its row."""


async def ask(
    edge: LabEdge,
    arm: Arm,
    messages: Sequence[Message],
    *,
    question_id: str,
    max_tokens: int,
    seed: int,
    follow_ups: Sequence[str] = (),
) -> EdgeAnswer:
    """Return the answer to a conversation, and to the user's follow-ups in it. Raises RequestFailed, EdgeGone."""
    turn = partial(_turn, edge, arm, question_id=question_id, max_tokens=max_tokens, seed=seed)
    whole = last = await turn(messages)
    conversation = list(messages)
    for text in follow_ups:
        conversation += [Message(role="assistant", content=last.output), Message(role="user", content=text)]
        last = await turn(conversation)
        segments = [*_with_break(whole.segments), *last.segments]
        whole = _joined(whole, last, whole.output + TURN_BREAK + last.output, segments)
    return whole


async def _turn(
    edge: LabEdge, arm: Arm, messages: Sequence[Message], *, question_id: str, max_tokens: int, seed: int
) -> EdgeAnswer:
    request = arm.request(question_id, seed)
    answer = partial(edge.answer, seed=seed, arm=arm.text)
    if arm.kind == "naive":
        return await _naive(answer, messages, request, arm.values["max_guidance_tokens"], max_tokens=max_tokens)
    if not arm.asks_student_first:
        return await answer(messages, request, max_tokens=max_tokens)
    probe_tokens = arm.values.get("probe_tokens", ROUTE_PROBE_TOKENS) if arm.kind == "route" else max_tokens
    first_tokens = min(max_tokens, probe_tokens)
    first = await answer(messages, request, max_tokens=first_tokens, logprobs=True)
    confident = first.confidence >= arm.values["confidence_threshold"]
    if confident and (first.finish == "stop" or first_tokens == max_tokens):
        # The user sees no token before it is decided which model's answer counts.
        return first.model_copy(update={"first_token_s": first.total_s})
    second = await answer(messages, {"model": STUDENT if confident else TEACHER}, max_tokens=max_tokens)
    return _sum(first, second)


async def _naive(
    answer: Callable[..., Awaitable[EdgeAnswer]],
    messages: Sequence[Message],
    request: Mapping[str, Any],
    guidance_tokens: int,
    *,
    max_tokens: int,
) -> EdgeAnswer:
    """Answer as two plain chat servers would: the teacher's first tokens, cut anywhere, become an assistant message, which a
    second request to the student continues with a message of its own.
    """
    began = await answer(messages, request, max_tokens=min(guidance_tokens, max_tokens))
    if began.finish == "stop" or guidance_tokens >= max_tokens:
        return began
    conversation = [*messages, Message(role="assistant", content=began.output)]
    ended = await answer(conversation, {"model": STUDENT}, max_tokens=max_tokens - guidance_tokens)
    return _joined(began, ended, began.output + ended.output, [*began.segments, *ended.segments])


def _joined(first: EdgeAnswer, second: EdgeAnswer, output: str, segments: Sequence[Segment]) -> EdgeAnswer:
    """Return both answers as one, which the user begins to see with the first."""
    update = {"output": output, "segments": segments, "first_token_s": first.first_token_s}
    return _sum(first, second).model_copy(update=update)


def _sum(first: EdgeAnswer, second: EdgeAnswer) -> EdgeAnswer:
    """Return the second answer with the cost of both. Its times count from the start of the first."""
    first_s = first.total_s or 0.0
    return second.model_copy(
        update={
            "teacher": _sum_tokens(first.teacher, second.teacher),
            "student": _sum_tokens(first.student, second.student),
            "first_token_s": None if second.first_token_s is None else first_s + second.first_token_s,
            "total_s": first_s + (second.total_s or 0.0),
            "template": second.template or first.template,
            "fallback": second.fallback or first.fallback,
            "teacher_model": second.teacher_model or first.teacher_model,
            "bytes_sent": first.bytes_sent + second.bytes_sent,
            "bytes_received": first.bytes_received + second.bytes_received,
        }
    )


def _sum_tokens(first: SideTokens, second: SideTokens) -> SideTokens:
    return SideTokens(**{name: getattr(first, name) + getattr(second, name) for name in SideTokens.model_fields})


def _with_break(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments of a turn, the last one with the separator behind it."""
    if not segments:
        return [Segment(source=Source.STUDENT, chars=len(TURN_BREAK), tokens=0)]
    last = segments[-1]
    return [*segments[:-1], last.model_copy(update={"chars": last.chars + len(TURN_BREAK)})]
