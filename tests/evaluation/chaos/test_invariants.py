"""Invariants of an answer: each one can fail, and a good answer breaks none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluation.chaos.answers import MalformedAnswer, ParsedAnswer, first_text, parse
from evaluation.chaos.clients import Response
from evaluation.chaos.invariants import Downtime, Invariant, ScriptedModels, judge
from evaluation.chaos.leaks import ResourceUsage, growth
from evaluation.chaos.workload import Behaviour, ClientRequest
from shared.echo_text import Mark, next_word
from shared.protocol.gkt import GktReport, Mode, Segment, Side, Source
from shared.protocol.guidance import ErrorBody, ErrorDetail
from shared.protocol.openai_responses import AnswerMessage, ChatChoice, ChatCompletion, CompletionUsage

MINE, OTHERS = "kqzvhbtx", "aaaabbbb"
REQUEST = ClientRequest(1, 0.0, "edge-a", Mark(MINE, 8), Mode.FIXED, "Why?", stream=False, max_tokens=20)
SCRIPTED = ScriptedModels(True, frozenset({"edge-a"}))


def written(teacher: int = 3, words: int = 8) -> list[tuple[Source, str]]:
    """Return the teacher's words and the student's, as scripted models write them."""
    text = ""
    parts = {Source.TEACHER: "", Source.STUDENT: ""}
    while text.count(";") < words:
        source = Source.TEACHER if text.count(";") < teacher else Source.STUDENT
        word = next_word(Mark(MINE, words), text, "t" if source is Source.TEACHER else "s")
        assert word is not None
        text += word
        parts[source] += word
    return list(parts.items())


def whole(parts: list[tuple[Source, str]], *, finish: Any = "stop", fallback: Any = None, tokens: int = 9) -> bytes:
    segments = [Segment(source=source, chars=len(text), tokens=tokens) for source, text in parts]
    report = GktReport(mode=Mode.FIXED, segments=[segments], student=Side(model="s"), fallback=fallback, request_id="r")
    message = AnswerMessage(content="".join(text for _, text in parts))
    usage = CompletionUsage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    choice = ChatChoice(index=0, message=message, finish_reason=finish)
    return (
        ChatCompletion(id="c", created=1, model="gkt", choices=[choice], usage=usage, gkt=report)
        .model_dump_json()
        .encode()
    )


def streamed(parts: list[tuple[Source, str]]) -> bytes:
    """Return the chunks of an answer, each of whole words."""
    report = json.loads(whole(parts))["gkt"]
    chunks: list[dict[str, Any]] = [_chunk({"role": "assistant", "content": ""})]
    chunks += [_chunk({"content": text}) | {"gkt": {"source": source}} for source, text in parts]
    chunks.append(_chunk({}, "stop") | {"gkt": report})
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "created": 1, "model": "gkt", "choices": [choice]}


def outcome(body: bytes = b"", status: int | None = 200, *, request: ClientRequest = REQUEST, **more: Any) -> Response:
    return Response(request, 10.0, 12.0, status, [(12.0, body)], **more)


def found(one: Response, *downtimes: Downtime) -> list[Invariant]:
    return [violation.invariant for violation in judge(one, {MINE, OTHERS}, downtimes, SCRIPTED).violations]


def test_a_good_answer_breaks_nothing() -> None:
    judged = judge(outcome(whole(written())), {MINE, OTHERS}, [], SCRIPTED)

    assert (judged.kind, judged.violations) == ("whole", [])


def test_a_good_stream_breaks_nothing() -> None:
    request = ClientRequest(1, 0.0, "edge-a", Mark(MINE, 8), Mode.FIXED, "Why?")

    assert judge(outcome(streamed(written()), request=request), {MINE, OTHERS}, [], SCRIPTED).kind == "whole"


def test_the_source_of_the_first_text_is_known_as_it_comes() -> None:
    body = streamed(written(teacher=2))
    until = body.index(b"data: ", body.index(b'"source"'))

    assert first_text([(1.0, body[: until - 1])]) is None, "an event that is not whole has no source"
    assert first_text([(1.0, body[: until - 1]), (2.0, body[until - 1 : until])]) == (2.0, Source.TEACHER)
    assert first_text([(1.0, body[:until]), (2.0, body[until:])]) == (1.0, Source.TEACHER)
    assert first_text([(1.0, streamed(written(teacher=0)[1:]))]) == (1.0, Source.STUDENT)


def test_an_answer_that_fell_back_is_degraded_and_breaks_nothing() -> None:
    judged = judge(outcome(whole(written(1), fallback="broken")), {MINE, OTHERS}, [], SCRIPTED)

    assert (judged.kind, judged.fallback, judged.violations) == ("degraded", "broken", [])


@pytest.mark.parametrize(
    "lost",
    [
        outcome(status=None, connection_error="ReadError"),
        outcome(late=True),
        outcome(b"not JSON"),
        outcome(whole(written())[:-5]),
        outcome(b"oops", status=500),
        outcome(b'{"error": {"message": "", "type": "x"}}', status=503),
    ],
)
def test_what_is_no_whole_answer_is_lost_unless_its_edge_was_away(lost: Response) -> None:
    assert found(lost) == [Invariant.LOST]
    assert found(lost, Downtime("edge-b", 9.0, 13.0), Downtime("edge-a", 12.5, 13.0)) == [Invariant.LOST]
    assert judge(lost, {MINE}, [Downtime("edge-a", 11.0, 13.0)], SCRIPTED).kind == "away"


def test_every_word_of_another_request_is_seen_even_in_an_answer_that_is_lost() -> None:
    parts = [*written(), (Source.STUDENT, f" {OTHERS}s70;")]

    assert Invariant.MIXED in found(outcome(whole(parts)))
    assert Invariant.MIXED in found(outcome(f"x{OTHERS}".encode(), status=None, connection_error="ReadError"))


@pytest.mark.parametrize("changed", ["twice", "missing", "flipped", "student's"])
def test_guidance_that_is_not_where_it_stood_for_the_student_is_seen(changed: str) -> None:
    (_, teacher), (_, student) = written()
    first, *rest = teacher.split(" ")
    guidance = {
        "twice": f"{teacher} {teacher}",
        "missing": " ".join(rest),
        "flipped": teacher.replace("k", "j", 1),
        "student's": teacher.replace(f"{MINE}t0", f"{MINE}s0"),
    }[changed]
    assert first

    assert Invariant.PREFIX in found(outcome(whole([(Source.TEACHER, guidance), (Source.STUDENT, student)])))


def test_an_answer_that_ends_early_is_seen() -> None:
    short = written(words=5)

    assert found(outcome(whole(short))) == [Invariant.COMPLETE]
    assert found(outcome(whole(short, finish="length", tokens=2))) == [Invariant.COMPLETE]
    assert found(outcome(whole(short, finish="length", tokens=10))) == []


def test_an_error_is_an_end_but_not_one_that_says_the_edge_is_broken() -> None:
    def error(code: str) -> bytes:
        return ErrorBody(error=ErrorDetail(message="no", type="server_error", code=code)).model_dump_json().encode()

    assert judge(outcome(error("overloaded"), 503), {MINE}, [], SCRIPTED).error == "overloaded"
    assert found(outcome(error("overloaded"), 503)) == []
    assert found(outcome(error("internal_error"), 500)) == [Invariant.CRASHED]


def test_clients_that_left_are_owed_nothing() -> None:
    gone = ClientRequest(1, 0.0, "edge-a", Mark(MINE, 8), Mode.FIXED, "Why?", behaviour=Behaviour.VANISHES)

    assert judge(outcome(status=None, request=gone), {MINE}, [], SCRIPTED).kind == "vanished"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (streamed(written()).replace(b"data: [DONE]\n\n", b""), "ended before"),
        (streamed(written())[:-1], "ended before"),
        (streamed(written()).replace(b'"id": "c"', b'"id": "d"', 1), "several answers"),
        (streamed(written()).replace(b'"finish_reason": "stop"', b'"finish_reason": null'), "0 finish reasons"),
        (streamed(written()).replace(b'"source": "teacher"}', b'"source": "student"}', 1), "sources of the chunks"),
        (b"", "ended before"),
    ],
)
def test_a_stream_with_something_missing_is_malformed(broken: bytes, why: str) -> None:
    assert isinstance(parse(200, streamed(written()), stream=True), ParsedAnswer)
    with pytest.raises(MalformedAnswer, match=why):
        parse(200, broken, stream=True)


def test_what_has_grown_is_said() -> None:
    before = ResourceUsage(rss_bytes=100_000_000, handles=20, threads=5, tasks=4, work=0)
    bounds = ResourceUsage(rss_bytes=10, handles=2, threads=2, tasks=2)

    assert growth(before, before, bounds) == []
    after = ResourceUsage(rss_bytes=100_000_011, handles=23, threads=8, tasks=7, work=1)
    assert len(growth(before, after, bounds)) == 5
