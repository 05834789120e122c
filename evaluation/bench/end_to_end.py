"""Figures of the whole path: a question, guidance from the cloud, the rest of the answer from the edge's student."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from evaluation.bench.ab_rounds import Incomplete, Progress, Rounds, columns, compared
from evaluation.bench.prompts import questions
from evaluation.figures import Figure, Measurement, NotMeasured, median, p95, ratio
from evaluation.loadgen.client import Client
from evaluation.loadgen.timeline import TimedAnswer
from evaluation.servers.llama_loop import llama_loop
from evaluation.servers.machine import resident_bytes
from evaluation.servers.services import ServicePair
from shared.model_hub.local_models import ensure_gguf
from shared.prompting.word_boundaries import WRAP_UP_TOKENS
from shared.protocol.gkt import Mode

GUIDANCE_TOKENS = 40
GUIDED_MAX_TOKENS = 104
DECODE_TOKENS = 128
LONG_ANSWER_TOKENS = 200


def measure_guidance(client: Client, rounds: Rounds) -> Measurement:
    """Measure the edge's part of the first token's latency, and the gap at the handover. Each question is new to both sides."""

    def through_edge(question: str) -> dict[str, float]:
        answer = _guided(client, question, GUIDED_MAX_TOKENS)
        student_tokens = answer.report.student.completion_tokens
        if answer.teacher_tokens <= GUIDANCE_TOKENS - WRAP_UP_TOKENS or student_tokens <= 10:
            raise Incomplete("too few answers continued after the guidance")
        return {"first_ms": 1e3 * answer.first_text_s, "gap_s": answer.handover_gap_s, "itl_s": answer.inter_token_s}

    def from_cloud(question: str) -> dict[str, float]:
        guidance = client.guidance(question, tokens=GUIDANCE_TOKENS)
        cached = guidance.done.usage.cached_tokens if guidance.done else 0
        return {"first_ms": 1e3 * guidance.first_text_s, "rate": guidance.rate, "cached_tokens": cached}

    ways = {"edge": through_edge, "cloud": from_cloud}
    warm_up, *new = questions()
    for way in ways.values():
        with suppress(Incomplete):
            way(warm_up)
    rows = rounds.take_turns("first token and handover", ways, new, lambda way, question: way(question))
    first_ms = columns(rows, "first_ms")
    overheads_ms = [edge - cloud for edge, cloud in zip(first_ms["edge"], first_ms["cloud"], strict=True)]
    edge_ms, cloud_ms = median(first_ms["edge"]), median(first_ms["cloud"])
    gaps = [ratio(row["gap_s"], row["itl_s"]) for row in rows["edge"]]
    how = f"{rounds.count} questions, {GUIDANCE_TOKENS} guidance tokens"
    overhead_how = (
        f"first text: {edge_ms:.0f} ms through the edge, {cloud_ms:.0f} ms directly from the cloud; median of {how}"
    )
    gap_how = f"last guidance to first student chunk, divided by the answer's median inter-token latency; p95 of {how}"
    rate = median([row["rate"] for row in rows["cloud"]])
    return Measurement(
        [
            Figure("ttft_overhead_ms", median(overheads_ms), overhead_how, at_most=20),
            Figure("seam_gap_ratio", p95(gaps), gap_how, at_most=2),
            Figure("teacher_ttft_ms", cloud_ms, f"directly from the cloud, median of {how}"),
            Figure("teacher_tokens_per_s", rate, f"directly from the cloud, median of {how}"),
        ],
        {
            "ttft_edge_ms": edge_ms,
            "ttft_cloud_ms": cloud_ms,
            "ttft_overhead_p95_ms": p95(overheads_ms),
            "seam_gap_ratio_median": median(gaps),
            "seam_gap_ms": 1e3 * median([row["gap_s"] for row in rows["edge"]]),
            "seam_inter_token_ms": 1e3 * median([row["itl_s"] for row in rows["edge"]]),
            "ttft_cloud_cached_tokens": sum(row["cached_tokens"] for row in rows["cloud"]),
        },
    )


def measure_decoding(client: Client, pair: ServicePair, rounds: Rounds, *, threads: int) -> Measurement:
    """Compare the student through the edge with a plain llama.cpp loop on the same file."""
    rounds.progress("decoding: loading the llama.cpp loop")
    with llama_loop(ensure_gguf(pair.student), threads=threads) as loop:
        question, prompt_tokens = _long_question(client)
        tokens, _ = loop.generate(question, DECODE_TOKENS)
        if tokens != prompt_tokens:
            raise NotMeasured(f"the prompts differ: {tokens} tokens in the loop, {prompt_tokens} at the edge")
        ways: dict[str, Callable[[], float]] = {
            "edge": lambda: _alone(client, question).student_rate,
            "bare": lambda: loop.generate(question, DECODE_TOKENS)[1],
        }
        rates = rounds.take_turns("decoding", ways, range(rounds.count), lambda way, _: way())
    how = f"{DECODE_TOKENS} tokens, greedy, {threads} threads, medians of {rounds.count} rounds, the cloud idle"
    ratio_how = f"through the edge, and in a llama_cpp.Llama loop; {how}"
    student = Figure("student_tokens_per_s", median(rates["edge"]), f"through the edge, mode off: {how}")
    return compared("decode_ratio", rates, "tokens_per_s", ratio_how, at_least=0.95) + Measurement([student])


def measure_speedup(client: Client, rounds: Rounds) -> Measurement:
    """Compare long answers of the teacher alone with guided ones."""
    ways: dict[str, Callable[[str], TimedAnswer]] = {
        "alone": lambda question: client.answer(question, model="gkt-teacher", max_tokens=LONG_ANSWER_TOKENS),
        "guided": lambda question: _guided(client, question, LONG_ANSWER_TOKENS),
    }

    def measure(way: Callable[[str], TimedAnswer], question: str) -> dict[str, float]:
        answer = way(question)
        if answer.tokens < LONG_ANSWER_TOKENS:
            raise Incomplete(f"too few answers had {LONG_ANSWER_TOKENS} tokens both ways")
        return {"s": answer.total_s, "teacher_tokens": answer.teacher_tokens}

    rows = rounds.take_turns("long answers", ways, questions(), measure)
    how = f"{LONG_ANSWER_TOKENS} tokens, guided with {GUIDANCE_TOKENS}; medians of {rounds.count} answers"
    tokens = {way: sum(values) for way, values in columns(rows, "teacher_tokens").items()}
    saved = 1 - ratio(tokens["guided"], tokens["alone"])
    saved_how = (
        f"part of the teacher's tokens ({tokens['alone']:.0f} alone, {tokens['guided']:.0f} guided) that guidance saves"
    )
    return compared("speedup", columns(rows, "s"), "s", how) + Measurement(
        [Figure("cloud_tokens_saved", saved, saved_how)]
    )


def measure_memory(client: Client, pair: ServicePair, progress: Progress) -> Measurement:
    """Measure the edge's resident size after an answer, which loads the whole model."""
    if pair.edge_pid is None:
        raise NotMeasured("the process of an edge that runs elsewhere is unknown: use --edge-pid")
    progress("memory")
    _alone(client, questions()[0])
    resident_mb, model_mb = resident_bytes(pair.edge_pid) / 1e6, ensure_gguf(pair.student).stat().st_size / 1e6
    how = f"resident size of the edge ({resident_mb:.0f} MB) minus its model file ({model_mb:.0f} MB), after the load"
    return Measurement(
        [Figure("edge_rss_over_model_mb", resident_mb - model_mb, how, at_most=350)],
        {"edge_rss_mb": resident_mb, "model_mb": model_mb},
    )


def _alone(client: Client, question: str) -> TimedAnswer:
    return client.answer(question, mode=Mode.OFF, max_tokens=DECODE_TOKENS)


def _guided(client: Client, question: str, max_tokens: int) -> TimedAnswer:
    return client.answer(question, mode=Mode.FIXED, max_tokens=max_tokens, guidance_tokens=GUIDANCE_TOKENS)


def _long_question(client: Client) -> tuple[str, int]:
    """Return a question that the student answers with all the tokens of a measurement, and the length of its prompt."""
    for question in questions():
        student = _alone(client, question).report.student
        if student.completion_tokens == DECODE_TOKENS:
            return question, student.prompt_tokens
    raise NotMeasured(f"the student answers no question with {DECODE_TOKENS} tokens")
