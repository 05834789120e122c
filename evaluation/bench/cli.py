"""`gkt bench`: the figures, measured on running services, as a table and as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from evaluation.bench import cloud, end_to_end, student
from evaluation.bench.end_to_end import Effort
from evaluation.bench.outage_latency import measure_delay
from evaluation.bench.results import Result, Say
from evaluation.bench.session import measuring
from evaluation.loadgen.client import Client
from evaluation.servers.services import Pair, await_ready, started_edge, started_pair

app = typer.Typer(name="bench", rich_markup_mode="rich")


class Part(StrEnum):
    """What is measured together."""

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
    cloud_url: Annotated[str | None, typer.Option(help="Measure this running cloud; none is started.")] = None,
    cloud_key_env: Annotated[str, typer.Option(help="Variable that holds its key.")] = "GKT_EDGE_CLOUD_KEY",
    edge_url: Annotated[
        str | None, typer.Option(help="Measure this running edge of that cloud; needs --cloud-url.")
    ] = None,
    edge_key_env: Annotated[str, typer.Option(help="Variable that holds its key.")] = "GKT_EDGE_API_KEY",
    edge_pid: Annotated[int | None, typer.Option(help="Its process here, for its resident size.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Compute threads of the edge and the bare loop; all cores where unset.")
    ] = None,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given again; all where unset.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, max=30, help="Questions for first token and seam.")] = Effort.pairs,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of decoding.")] = Effort.rounds,
    answers: Annotated[int, typer.Option(min=1, max=20, help="Long answers each way.")] = Effort.answers,
    start_s: Annotated[float, typer.Option(help="Seconds for the services to start, models included.")] = 1200,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here too, as {name: value}.")
    ] = None,
) -> None:
    """Measure the main job: starts a cloud and an edge, asks them as any client would, and stops them again.

    Takes about eight minutes with the default models on two cores. Leave the machine alone meanwhile.

    Ends with 0 whether or not the figures are what was asked for, and with 1 where one cannot be measured.

    Example: gkt bench --json figures.json
    """
    if context.invoked_subcommand:
        return
    if edge_url and not cloud_url:
        raise typer.BadParameter("an edge is compared with its cloud: give --cloud-url too", param_hint="--edge-url")
    chosen = list(Part) if not only else [part for part in Part if part in only]
    if Part.MEMORY in chosen and edge_url and not edge_pid:
        raise typer.BadParameter(
            "the edge's resident size needs its process: give --edge-pid, or choose parts with --only",
            param_hint="--edge-url",
        )
    threads = threads or os.cpu_count() or 1
    effort = Effort(pairs, rounds, answers)
    with measuring("starting the cloud and the edge") as run:
        with (
            _pair(
                teacher=teacher,
                student=student,
                cloud_url=cloud_url,
                cloud_key_env=cloud_key_env,
                edge_url=edge_url,
                edge_pid=edge_pid,
                threads=threads,
                start_s=start_s,
            ) as pair,
            Client(
                pair.edge_url,
                pair.cloud_url,
                pair.cloud_key,
                edge_key=os.environ.get(edge_key_env) if edge_url else None,
            ) as client,
        ):
            run.look()
            for part in chosen:
                run.take(part, partial(_measure, part, client, pair, effort, run.say, threads=threads, start_s=start_s))
        models = {"teacher": pair.teacher, "student": pair.student}
        run.report(f"{pair.teacher} teaching {pair.student}", models, json_file)


def _measure(
    part: Part, client: Client, pair: Pair, effort: Effort, say: Say, *, threads: int, start_s: float
) -> Result:
    match part:
        case Part.GUIDANCE:
            return end_to_end.measure_guidance(client, effort, say)
        case Part.DECODING:
            return end_to_end.measure_decoding(client, pair, effort, say, threads=threads)
        case Part.SPEEDUP:
            return end_to_end.measure_speedup(client, effort, say)
        case Part.MEMORY:
            return end_to_end.measure_memory(client, pair, say)
        case Part.DELAY:
            # An edge of its own: the one of the pair has a cloud that is well.
            return measure_delay(pair.student, effort, say, threads=threads, start_s=start_s)


@contextmanager
def _pair(
    *,
    teacher: str,
    student: str,
    cloud_url: str | None,
    cloud_key_env: str,
    edge_url: str | None,
    edge_pid: int | None,
    threads: int,
    start_s: float,
) -> Iterator[Pair]:
    """What is measured: services of our own, or those that run."""
    if not cloud_url:
        with started_pair(teacher, student, threads=threads, start_s=start_s) as pair:
            yield pair
        return
    key = os.environ.get(cloud_key_env)
    until = time.monotonic() + start_s
    teacher = await_ready(cloud_url, until)
    if edge_url:
        yield Pair(cloud_url, key, edge_url, edge_pid, teacher, await_ready(edge_url, until))
        return
    with started_edge(student, cloud_url, key, threads=threads, start_s=start_s) as (url, pid):
        yield Pair(cloud_url, key, url, pid, teacher, student)


app.command("student")(student.student)
app.command("cloud")(cloud.cloud)


if __name__ == "__main__":
    app()
