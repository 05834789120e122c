"""`gkt chaos`: services of its own under faults of every kind, and whether clients can tell."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.bench.report import complain
from evaluation.chaos import clocks as wall_clocks
from evaluation.chaos.cluster import Models, Pace, town
from evaluation.chaos.faults import CLOUD, FaultKind
from evaluation.chaos.invariants import Scripted
from evaluation.chaos.report import figures, show, write_log
from evaluation.chaos.run import Plan, Ran, run
from evaluation.figures import NotMeasured
from evaluation.servers.services import stopped_on_sigterm
from shared.errors import GktError

app = typer.Typer(name="chaos", rich_markup_mode="rich", pretty_exceptions_enable=False)

EDGES = ("edge-a", "edge-b")
SMALL = "smollm2-135m-instruct"
NO_MODEL = "none (scripted words)"


@app.command()
def chaos(
    *,
    seed: Annotated[int, typer.Option(help="The same seed: the same requests, and the same faults.")] = 1,
    requests: Annotated[int, typer.Option(min=1, help="How many.")] = 400,
    per_s: Annotated[float, typer.Option(min=0.1, help="How many begin in a second.")] = 8.0,
    student: Annotated[
        str, typer.Option(help="Model of edge-b, on llama.cpp; `none` has it say scripted words as edge-a does.")
    ] = SMALL,
    only: Annotated[
        list[FaultKind] | None, typer.Option(help="Only this kind of fault; may be given again; all where unset.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="A real teacher and real students everywhere: fewer things can be checked.")
    ] = False,
    teacher: Annotated[str, typer.Option(help="With --models: the cloud's model.")] = SMALL,
    deadline_s: Annotated[float, typer.Option(min=1, help="Every request has ended after so long.")] = 40.0,
    start_s: Annotated[float, typer.Option(help="Seconds for the services to start.")] = 300.0,
    logs: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder for the logs; without it they are kept only where something is wrong."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here too.")
    ] = None,
) -> None:
    """Start a cloud, a wide-area link and two edges, and strike them while requests run: links are slow, stalled, cut, reset,
    corrupted, refused; the cloud is killed and paused; edges are killed; disks are full, clocks jump; clients vanish or never
    read. Then check what every client saw.

    Ends with 1 where an answer was lost, mixed with another's, or anything else did not hold.

    Example: gkt chaos --seed 7 --json chaos.json
    """
    chosen = None if student == "none" else student
    what = Models(teacher if models else None, {"edge-a": student if models else None, "edge-b": chosen})
    scripted = Scripted(not models, frozenset(edge for edge, model in what.students.items() if model is None))
    library = wall_clocks.library()
    without = {kind for kind in FaultKind if only and kind not in only}
    if not library:
        without.add(FaultKind.CLOCK_JUMP)
    plan = Plan(seed, requests, per_s, deadline_s, scripted, without)
    who = {CLOUD: what.teacher or NO_MODEL, **{edge: model or NO_MODEL for edge, model in what.students.items()}}
    err = Console(stderr=True)
    if not library and FaultKind.CLOCK_JUMP in (only or FaultKind):
        err.print("no clock jumps: libfaketime is not installed (apt-get install libfaketime)")
    folder = logs or Path(tempfile.mkdtemp(prefix="gkt-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    failed = True
    try:
        with stopped_on_sigterm():
            ran = _run(what, plan, folder, library=library, start_s=start_s, err=err)
        show(ran, who, Console())
        write_log(ran, folder / "requests.jsonl")
        if json_file:
            json_file.write_text(json.dumps(figures(ran, who), indent=2) + "\n", "utf-8")
        failed = bool(ran.violations)
    except (NotMeasured, GktError, OSError) as error:
        complain(str(error), err)
    finally:
        if failed or logs:
            err.print(f"the logs: {folder}", soft_wrap=True, highlight=False)
        else:
            shutil.rmtree(folder)
    if failed:
        raise typer.Exit(1)


def _run(what: Models, plan: Plan, folder: Path, *, library: Path | None, start_s: float, err: Console) -> Ran:
    clocks = wall_clocks.Clocks(library, folder) if library else None
    environments = {name: clocks.environment(name) for name in (CLOUD, *what.students)} if clocks else {}
    with (
        err.status("starting the services") as status,
        town(what, Pace(), folder, start_s=start_s, environments=environments) as services,
    ):
        return asyncio.run(run(services, plan, clocks, status.update))


if __name__ == "__main__":
    app()
