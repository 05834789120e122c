"""Measurements from bytes and the times of their arrival."""

from __future__ import annotations

import pytest

from evaluation.figures import NotMeasured
from evaluation.loadgen.timeline import parse_answer, parse_guidance
from shared.protocol.gkt import FallbackReason, Source
from shared.protocol.guidance import Failure
from shared.protocol.sse import encode
from tests.evaluation.scripted import Timed, answer_reads, guidance_reads

TEACHER, STUDENT = Source.TEACHER, Source.STUDENT
WORDS: list[Timed] = [
    (0.5, "Two", TEACHER),
    (0.6, " and", TEACHER),
    (0.7, " two", STUDENT),
    (0.72, " are", STUDENT),
    (0.75, " four", STUDENT),
    (0.77, ".", STUDENT),
]


def test_first_text_is_the_first_chunk_with_content() -> None:
    reads = answer_reads(WORDS, total_s=0.8, teacher=2)
    reads[0] = (0.1, reads[0][1])  # the role comes long before

    assert parse_answer(reads).first_text_s == 0.5


def test_an_answer_has_its_seam_latency_rate_and_tokens() -> None:
    read = parse_answer(answer_reads(WORDS, total_s=0.8, teacher=2))

    assert read.text == "Two and two are four."
    assert read.handover_gap_s == pytest.approx(0.1)
    assert read.inter_token_s == pytest.approx(0.02)
    assert read.student_rate == pytest.approx(3 / 0.07)
    assert (read.tokens, read.teacher_tokens, read.total_s, read.end) == (6, 2, 0.8, "length")


def test_chunks_that_arrive_in_one_read_have_one_time() -> None:
    reads = answer_reads(WORDS, total_s=0.8, teacher=2)
    joined = [(0.6, b"".join(data for _, data in reads[:3])), *reads[3:]]

    assert parse_answer(joined).times(TEACHER) == [0.6, 0.6]


@pytest.mark.parametrize("source", [TEACHER, STUDENT])
def test_an_answer_of_one_side_has_no_seam(source: Source) -> None:
    read = parse_answer(answer_reads([(0.5, "Four", source), (0.6, ".", source)], total_s=0.8))

    with pytest.raises(NotMeasured, match="no handover"):
        _ = read.handover_gap_s


def test_a_stream_that_breaks_off_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="ended before"):
        parse_answer(answer_reads(WORDS, total_s=0.8)[:-1])
    with pytest.raises(NotMeasured, match="ended before"):
        parse_answer([])
    assert parse_guidance(guidance_reads([(0.1, "a"), (0.2, "b")])[:-1]).done is None


def test_an_answer_without_the_cloud_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="stalled"):
        parse_answer(answer_reads(WORDS, total_s=0.8, fallback=FallbackReason.STALLED))


def test_what_is_no_chunk_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="not a chunk"):
        parse_answer([(0.1, b"data: {}\n\ndata: [DONE]\n\n")])


def test_guidance_is_timed_by_its_first_event_with_text() -> None:
    run = parse_guidance(guidance_reads([(0.1, ""), (0.3, "Two"), (0.5, " and")]))

    assert run.first_text_s == 0.3
    assert run.rate == pytest.approx(2 / 0.4)
    assert run.done
    assert run.done.usage.completion_tokens == 3


def test_guidance_that_fails_is_not_measured() -> None:
    reads = guidance_reads([(0.1, "Two"), (0.2, " and")])
    reads[-1] = (0.3, encode(Failure(code="engine_failed", message="it died")))

    with pytest.raises(NotMeasured, match="engine_failed"):
        parse_guidance(reads)
    with pytest.raises(NotMeasured, match="no text"):
        _ = parse_guidance(guidance_reads([(0.1, "")])).first_text_s
    with pytest.raises(NotMeasured, match="invalid fields"):
        parse_guidance([(0.1, b"event: guidance\ndata: {}\n\n")])
