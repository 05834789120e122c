"""`gkt chaos`: inject faults into services of its own, and check that clients see none of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.bench.session import print_failure
from evaluation.chaos.clocks import Clocks, find_library
from evaluation.chaos.cluster import ClusterModels, cluster
from evaluation.chaos.faults import CLOUD, ChaosFault
from evaluation.chaos.invariants import ScriptedModels
from evaluation.chaos.report import figures, show, write_log
from evaluation.chaos.run import RunConfig, RunResult, run
from evaluation.figures import NotMeasured
from evaluation.servers.processes import exit_on_sigterm
from shared.errors import GktError

app = typer.Typer(name="chaos", rich_markup_mode="rich", pretty_exceptions_enable=False)

SMALL = "smollm2-135m-instruct"
NO_MODEL = "none (scripted words)"


@app.command()
def chaos(
    *,
    seed: Annotated[int, typer.Option(help="Seed of the requests and the faults.")] = 1,
    requests: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 400,
    per_s: Annotated[float, typer.Option(min=0.1, help="Requests that begin in a second.")] = 8.0,
    student: Annotated[
        str, typer.Option(help="Model of edge-b, on llama.cpp; `none` lets it write scripted words, as edge-a does.")
    ] = SMALL,
    only: Annotated[
        list[ChaosFault] | None, typer.Option(help="Inject only this kind of fault; may be repeated. If unset, all.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Use a real teacher and real students: fewer invariants can be checked.")
    ] = False,
    teacher: Annotated[str, typer.Option(help="Model of the cloud with --models.")] = SMALL,
    deadline_s: Annotated[float, typer.Option(min=1, help="Seconds in which every request must end.")] = 40.0,
    start_s: Annotated[float, typer.Option(help="Seconds that the services may take to start.")] = 300.0,
    logs: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the logs. If unset, they are kept only on failure.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Also write the figures to this file.")
    ] = None,
) -> None:
    """Start a cloud, a wide-area link and two edges, and inject faults while requests run: links are slow, stalled, cut, reset,
    corrupted, refused; the cloud is killed and paused; edges are killed; disks are full, clocks jump; clients disconnect or never
    read. Then check what every client received.

    The exit status is 1 if an answer was lost or mixed with another, or if any other invariant was violated.

    Example: gkt chaos --seed 7 --json chaos.json
    """
    edge_b = None if student == "none" else student
    what = ClusterModels(teacher if models else None, {"edge-a": student if models else None, "edge-b": edge_b})
    scripted = ScriptedModels(not models, frozenset(edge for edge, model in what.students.items() if model is None))
    names = {CLOUD: what.teacher or NO_MODEL, **{edge: model or NO_MODEL for edge, model in what.students.items()}}
    err = Console(stderr=True)
    folder = logs or Path(tempfile.mkdtemp(prefix="gkt-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    without = {kind for kind in ChaosFault if only and kind not in only}
    library = find_library()
    if not library and ChaosFault.CLOCK_JUMP not in without:
        without.add(ChaosFault.CLOCK_JUMP)
        err.print("no clock jumps: libfaketime is not installed (apt-get install libfaketime)")
    clocks = Clocks(library, folder) if library else None
    config = RunConfig(seed, requests, per_s, deadline_s, scripted, without)
    failed = True
    try:
        with exit_on_sigterm():
            result = _run(what, config, folder, clocks, start_s=start_s, err=err)
        show(result, names, Console())
        write_log(result, folder / "requests.jsonl")
        if json_file:
            json_file.write_text(json.dumps(figures(result, names), indent=2) + "\n", "utf-8")
        failed = bool(result.violations)
    except (NotMeasured, GktError, OSError) as error:
        print_failure(str(error), err)
    finally:
        if failed or logs:
            err.print(f"the logs: {folder}", soft_wrap=True, highlight=False)
        else:
            shutil.rmtree(folder)
    if failed:
        raise typer.Exit(1)


def _run(
    models: ClusterModels, config: RunConfig, folder: Path, clocks: Clocks | None, *, start_s: float, err: Console
) -> RunResult:
    variables = {name: clocks.variables(name) for name in (CLOUD, *models.students)} if clocks else {}
    with (
        err.status("starting the services") as status,
        cluster(models, folder, start_s=start_s, variables=variables) as services,
    ):
        return asyncio.run(run(services, config, clocks, status.update))


if __name__ == "__main__":
    app()
