"""`gkt bench`: figures of running services, as a table and as JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from evaluation.bench import cloud, end_to_end, student
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.outage_latency import measure_outage
from evaluation.bench.session import ONLY, JsonFile, StartS, Threads, session
from evaluation.figures import Measurement
from evaluation.loadgen.client import connected
from evaluation.servers.processes import model_at
from evaluation.servers.services import ServicePair, edge_of, ready_pair

app = typer.Typer(name="bench", rich_markup_mode="rich")


class Benchmark(StrEnum):
    GUIDANCE = "guidance"
    DECODING = "decoding"
    SPEEDUP = "speedup"
    MEMORY = "memory"
    DELAY = "delay"


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    *,
    teacher: Annotated[str, typer.Option(help="Model of the cloud that is started.")] = "qwen2.5-coder-1.5b-instruct",
    student: Annotated[str, typer.Option(help="Model of the edge that is started.")] = "qwen2.5-coder-0.5b-instruct",
    cloud_url: Annotated[
        str | None,
        typer.Option(help="URL of a running cloud; its key is in GKT_EDGE_CLOUD_KEY. If unset, one is started."),
    ] = None,
    edge_url: Annotated[
        str | None,
        typer.Option(help="URL of a running edge of that cloud; its key is in GKT_EDGE_API_KEY. Requires --cloud-url."),
    ] = None,
    edge_pid: Annotated[int | None, typer.Option(help="Process id of that edge, to read its memory.")] = None,
    threads: Threads = None,
    only: Annotated[list[Benchmark] | None, ONLY] = None,
    pairs: Annotated[int, typer.Option(min=1, max=30, help="Questions for first token and handover.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of decoding.")] = 7,
    answers: Annotated[int, typer.Option(min=1, max=20, help="Long answers with guidance and without.")] = 3,
    start_s: StartS = 1200,
    json_file: JsonFile = None,
) -> None:
    """Measure the whole path: start a cloud and an edge, send requests as a client would, and stop them.

    This takes about eight minutes with the default models on two cores. The machine must be idle otherwise.

    The exit status is 1 if a figure could not be measured, and 0 otherwise, even if a target was missed.

    Example: gkt bench --json figures.json
    """
    if context.invoked_subcommand:
        return
    if edge_url and not cloud_url:
        raise typer.BadParameter("an edge is compared with its cloud: add --cloud-url", param_hint="--edge-url")
    chosen = [benchmark for benchmark in Benchmark if not only or benchmark in only]
    if Benchmark.MEMORY in chosen and edge_url and not edge_pid:
        raise typer.BadParameter(
            "the edge's memory is read from its process: add --edge-pid, or choose benchmarks with --only",
            param_hint="--edge-url",
        )
    threads = threads or os.cpu_count() or 1
    cloud_key, edge_key = os.environ.get("GKT_EDGE_CLOUD_KEY"), os.environ.get("GKT_EDGE_API_KEY") if edge_url else None
    if cloud_url:
        services = _running_pair(student, cloud_url, cloud_key, edge_url, edge_pid, threads=threads, start_s=start_s)
    else:
        services = ready_pair(teacher, student, threads=threads, start_s=start_s)
    with session("starting the cloud and the edge") as run:
        with (
            services as pair,
            connected(pair.edge_url, pair.cloud_url, pair.cloud_key, edge_key=edge_key) as client,
        ):
            first, decoding, long = (Rounds(count, progress=run.progress) for count in (pairs, rounds, answers))
            measurements: dict[Benchmark, Callable[[], Measurement]] = {
                Benchmark.GUIDANCE: lambda: end_to_end.measure_guidance(client, first),
                Benchmark.DECODING: lambda: end_to_end.measure_decoding(client, pair, decoding, threads=threads),
                Benchmark.SPEEDUP: lambda: end_to_end.measure_speedup(client, long),
                Benchmark.MEMORY: lambda: end_to_end.measure_memory(client, pair, run.progress),
                # This starts an edge of its own: the pair's has a cloud that works.
                Benchmark.DELAY: lambda: measure_outage(pair.student, first, threads=threads, start_s=start_s),
            }
            run.check_idle()
            for benchmark in chosen:
                run.measure(benchmark, measurements[benchmark])
        about = {"teacher": pair.teacher, "student": pair.student}
        run.report(f"{pair.teacher} teaching {pair.student}", about, json_file, Console())


@contextmanager
def _running_pair(
    student: str,
    cloud_url: str,
    key: str | None,
    edge_url: str | None,
    edge_pid: int | None,
    *,
    threads: int,
    start_s: float,
) -> Iterator[ServicePair]:
    """Yield a cloud that runs already, and its edge; the edge is started unless it runs."""
    teacher = model_at(cloud_url, start_s)
    if edge_url:
        yield ServicePair(cloud_url, key, edge_url, edge_pid, teacher, model_at(edge_url, start_s))
        return
    with edge_of(cloud_url, key, student, threads=threads, start_s=start_s) as edge:
        yield ServicePair(cloud_url, key, edge.url, edge.pid, teacher, student)


app.command("student")(student.student)
app.command("cloud")(cloud.cloud)


if __name__ == "__main__":
    app()
