"""The figures of the main job: one question, guidance from the cloud, the answer finished at the edge."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from evaluation.bench.questions import questions
from evaluation.bench.results import REST_S, Result, Say
from evaluation.figures import Figure, NotMeasured, median, p95, ratio
from evaluation.loadgen.client import Client
from evaluation.loadgen.timeline import Answer, GuidanceRun
from evaluation.servers.llama_loop import BareRun, bare_llama
from evaluation.servers.machine import resident_bytes
from evaluation.servers.services import Pair
from shared.model_hub.catalog import ensure_gguf
from shared.prompting.word_boundaries import WRAP_UP_TOKENS
from shared.protocol.gkt import Mode

GUIDANCE_TOKENS = 40
GUIDED_MAX_TOKENS = 104
DECODE_TOKENS = 128
LONG_ANSWER_TOKENS = 200
EDGE_SPIN_COUNT = 10_000
"""What the edge sets for OpenMP where nobody else did."""


@dataclass(frozen=True)
class Effort:
    """How often each thing is measured: pairs of first tokens, rounds of decoding, pairs of long answers."""

    pairs: int = 20
    rounds: int = 7
    answers: int = 3


def measure_guidance(client: Client, effort: Effort, say: Say) -> Result:
    """The edge's cost at the first token, and the seam. Each question is new, and asked once each way."""
    asked = iter(questions())
    _pair_of(client, next(asked), edge_first=True)  # opens the connections, and warms up both sides
    answers: list[Answer] = []
    runs: list[GuidanceRun] = []
    for question in asked:
        say(f"first token and seam: pair {len(answers) + 1} of {effort.pairs}")
        answer, run = _pair_of(client, question, edge_first=len(answers) % 2 == 0)
        if answer.teacher_tokens > GUIDANCE_TOKENS - WRAP_UP_TOKENS and answer.report.student.completion_tokens > 10:
            answers.append(answer)
            runs.append(run)
        if len(answers) == effort.pairs:
            break
    else:
        raise NotMeasured(f"only {len(answers)} of {effort.pairs} answers went on beyond the guidance")
    gaps = [ratio(answer.seam_gap_s, answer.inter_token_s) for answer in answers]
    overheads = [1e3 * (a.first_text_s - r.first_text_s) for a, r in zip(answers, runs, strict=True)]
    through_edge = 1e3 * median([answer.first_text_s for answer in answers])
    straight = 1e3 * median([run.first_text_s for run in runs])
    how = f"{len(answers)} questions, {GUIDANCE_TOKENS} guidance tokens"
    return Result(
        [
            Figure(
                "ttft_overhead_ms",
                median(overheads),
                f"first text at the edge's client less first text straight from the cloud, median of {how}, "
                f"each asked both ways in turn ({through_edge:.0f} and {straight:.0f} ms)",
                at_most=20,
            ),
            Figure(
                "seam_gap_ratio",
                p95(gaps),
                f"last guidance to first student chunk, over the answer's median inter-token latency, p95 of {how}",
                at_most=2,
            ),
            Figure("teacher_ttft_ms", straight, f"straight from the cloud, median of {how}"),
            Figure(
                "teacher_tokens_per_s", median([run.rate for run in runs]), f"straight from the cloud, median of {how}"
            ),
        ],
        {
            "ttft_edge_ms": through_edge,
            "ttft_cloud_ms": straight,
            "ttft_overhead_p95_ms": p95(overheads),
            "seam_gap_ratio_median": median(gaps),
            "seam_gap_ms": 1e3 * median([answer.seam_gap_s for answer in answers]),
            "seam_inter_token_ms": 1e3 * median([answer.inter_token_s for answer in answers]),
            "ttft_cloud_cached_tokens": float(sum(run.done.usage.cached_tokens for run in runs)),
        },
    )


def measure_decoding(client: Client, pair: Pair, effort: Effort, say: Say, *, threads: int) -> Result:
    """The student alone through the edge, and bare loops on the same file: with OpenMP as it comes, and as the edge has it."""
    path = ensure_gguf(pair.student)
    with ExitStack() as stack:
        say("decoding: loading the bare loops")
        plain = stack.enter_context(bare_llama(path, threads=threads, spin_count=None))
        as_edge = stack.enter_context(bare_llama(path, threads=threads, spin_count=EDGE_SPIN_COUNT))
        question, expected = _long_question(client)
        for loop in (plain, as_edge):
            _same_prompt(loop.generate(question, DECODE_TOKENS), expected)
        edge_rates: list[float] = []
        rates: dict[str, list[float]] = {"plain": [], "as_edge": []}
        for number in range(effort.rounds):
            say(f"decoding: round {number + 1} of {effort.rounds}")
            for turn in ("edge", "plain", "as_edge") if number % 2 else ("as_edge", "plain", "edge"):
                time.sleep(REST_S)
                if turn == "edge":
                    edge_rates.append(_alone(client, question).student_rate)
                else:
                    loop = plain if turn == "plain" else as_edge
                    rates[turn].append(loop.generate(question, DECODE_TOKENS).rate)
    through_edge, bare, bare_as_edge = median(edge_rates), median(rates["plain"]), median(rates["as_edge"])
    how = f"{DECODE_TOKENS} tokens, greedy, {threads} threads, medians of {effort.rounds} in turn, the cloud idle"
    return Result(
        [
            Figure(
                "decode_ratio",
                ratio(through_edge, bare),
                f"student through the edge ({through_edge:.1f} tokens/s) over a bare llama_cpp.Llama ({bare:.1f}): {how}",
                at_least=0.95,
            ),
            Figure(
                "decode_ratio_same_waiting",
                ratio(through_edge, bare_as_edge),
                f"the same over a bare loop whose OpenMP threads spin as the edge's do ({bare_as_edge:.1f})",
            ),
            Figure("student_tokens_per_s", through_edge, f"through the edge, mode off: {how}"),
        ],
        {"bare_tokens_per_s": bare, "bare_same_waiting_tokens_per_s": bare_as_edge},
    )


def measure_speedup(client: Client, effort: Effort, say: Say) -> Result:
    """A long answer by the teacher alone, and guided."""
    alone: list[Answer] = []
    guided: list[Answer] = []
    for question in questions():
        say(f"long answers: pair {len(alone) + 1} of {effort.answers}")
        ways = [_teacher_alone, _guided_long]
        answers = {way: way(client, question) for way in (ways if len(alone) % 2 else ways[::-1])}
        if all(answer.tokens >= LONG_ANSWER_TOKENS for answer in answers.values()):
            alone.append(answers[_teacher_alone])
            guided.append(answers[_guided_long])
        if len(alone) == effort.answers:
            break
    else:
        raise NotMeasured(f"only {len(alone)} of {effort.answers} answers had {LONG_ANSWER_TOKENS} tokens both ways")
    alone_s, guided_s = median([a.total_s for a in alone]), median([a.total_s for a in guided])
    alone_tokens, guided_tokens = (float(sum(a.teacher_tokens for a in answers)) for answers in (alone, guided))
    return Result(
        [
            Figure(
                "speedup",
                ratio(alone_s, guided_s),
                f"whole time of {LONG_ANSWER_TOKENS} tokens, teacher alone ({alone_s:.1f} s) over guided with "
                f"{GUIDANCE_TOKENS} ({guided_s:.1f} s), medians of {len(alone)} in turn",
            ),
            Figure(
                "cloud_tokens_saved",
                1 - ratio(guided_tokens, alone_tokens),
                f"part of the teacher's tokens that these guided answers did without ({guided_tokens:.0f} "
                f"where it wrote {alone_tokens:.0f} alone)",
            ),
        ],
        {"teacher_alone_s": alone_s, "guided_s": guided_s},
    )


def measure_memory(client: Client, pair: Pair, say: Say) -> Result:
    """The edge's resident size after an answer that loads all of its model; measured last, it is that after all the load."""
    if pair.edge_pid is None:
        raise NotMeasured("the size of an edge that runs elsewhere cannot be read: give --edge-pid")
    say("memory")
    _alone(client, questions()[0])
    resident, model = resident_bytes(pair.edge_pid), ensure_gguf(pair.student).stat().st_size
    return Result(
        [
            Figure(
                "edge_rss_over_model_mb",
                (resident - model) / 1e6,
                f"resident size of the edge ({resident / 1e6:.0f} MB) less its model file ({model / 1e6:.0f} MB), after the load",
                at_most=350,
            )
        ],
        {"edge_rss_mb": resident / 1e6, "model_mb": model / 1e6},
    )


def _pair_of(client: Client, question: str, *, edge_first: bool) -> tuple[Answer, GuidanceRun]:
    """The same question through the edge and straight to the cloud."""
    run = None if edge_first else client.guidance(question, tokens=GUIDANCE_TOKENS)
    time.sleep(REST_S)
    answer = client.answer(
        question, model="gkt", mode=Mode.FIXED, max_tokens=GUIDED_MAX_TOKENS, guidance_tokens=GUIDANCE_TOKENS
    )
    time.sleep(REST_S)
    return answer, run or client.guidance(question, tokens=GUIDANCE_TOKENS)


def _alone(client: Client, question: str) -> Answer:
    return client.answer(question, model="gkt", mode=Mode.OFF, max_tokens=DECODE_TOKENS)


def _long_question(client: Client) -> tuple[str, Answer]:
    """A question to which the student alone writes as many tokens as are measured, and that answer."""
    answers: Iterator[tuple[str, Answer]] = ((question, _alone(client, question)) for question in questions())
    for question, answer in answers:
        if answer.report.student.completion_tokens == DECODE_TOKENS:
            return question, answer
    raise NotMeasured(f"the student answers no question with {DECODE_TOKENS} tokens")


def _same_prompt(bare: BareRun, expected: Answer) -> None:
    """Rates are compared only behind the same prompt. The texts may part: the two contexts differ in how they round."""
    if bare.prompt_tokens != expected.report.student.prompt_tokens:
        raise NotMeasured(
            f"the bare loop has another prompt: {bare.prompt_tokens} tokens, "
            f"and at the edge {expected.report.student.prompt_tokens}"
        )


def _teacher_alone(client: Client, question: str) -> Answer:
    return client.answer(question, model="gkt-teacher", max_tokens=LONG_ANSWER_TOKENS)


def _guided_long(client: Client, question: str) -> Answer:
    return client.answer(
        question, model="gkt", mode=Mode.FIXED, max_tokens=LONG_ANSWER_TOKENS, guidance_tokens=GUIDANCE_TOKENS
    )
