"""`gkt models`: list, fetch and verify the models of the catalogue, with progress of long work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gkt.local.preflight import leave_on_sigterm
from shared.errors import GktError
from shared.home import home
from shared.model_hub.catalog import Catalog, ModelEntry
from shared.model_hub.local_models import ensure_gguf, gguf_path, verified, verify
from shared.model_hub.progress import Logged, Progress

app = typer.Typer(
    name="models",
    no_args_is_help=True,
    help="List, fetch and verify the models of the catalogue.\n\n"
    "Models are stored under GKT_HOME, by default in your cache folder. Every command that accepts a name from this list also "
    "accepts a path to a GGUF file, or owner/repo:file.gguf on the model hub.",
)


class Bars:
    """`shared.model_hub.progress.Progress` for a terminal: one line for each piece of work, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: bars.Progress | None = None

    def start(self, label: str, total_bytes: int | None) -> None:
        self.finish()
        columns: list[bars.ProgressColumn] = [bars.TextColumn("{task.description}", markup=False), bars.BarColumn(20)]
        if total_bytes is None:
            columns.append(bars.TimeElapsedColumn())
        else:
            columns += [bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn()]
        self._bars = bars.Progress(*columns, console=self._console)
        self._bars.add_task(label, total=total_bytes)
        self._bars.start()

    def advance(self, amount_bytes: int) -> None:
        if self._bars is not None:
            self._bars.advance(self._bars.task_ids[0], amount_bytes)

    def finish(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def shown_progress() -> Progress:
    """Return progress bars for a terminal, and lines for other outputs, such as the log of a container."""
    console = Console(stderr=True)
    if console.is_terminal:
        return Bars(console)
    return Logged(write=lambda line: console.print(escape(line), soft_wrap=True, highlight=False))


@app.command("list")
def list_models() -> None:
    """List the catalogue: each model's use, licence and size, and whether it is on this machine."""
    table = Table("name", "for", "licence", "size", "here", box=None, header_style="bold", pad_edge=False)
    for entry in Catalog.load().models.values():
        roles = ", ".join(entry.roles)
        table.add_row(entry.name, roles, entry.licence, f"{entry.bytes / 1e6:,.0f} MB", _state(entry))
    console = Console()
    console.print(table)
    console.print(f"[dim]kept in {escape(str(home()))}[/dim]", soft_wrap=True)


def _state(entry: ModelEntry) -> str:
    if verified(entry):
        return "[green]verified[/green]"
    return "[yellow]unverified[/yellow]" if gguf_path(entry).is_file() else "no"


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(help="Names from `gkt models list`, or owner/repo:file.gguf.")],
    convert: Annotated[
        bool, typer.Option("--convert", help="Also convert a teacher into the folder that vLLM loads.")
    ] = False,
) -> None:
    """Download and verify models, and move them into place only then.

    Models that are here are not downloaded again. An interrupted download continues with the missing parts.

    Example: gkt models pull qwen2.5-coder-0.5b-instruct
    """
    leave_on_sigterm()
    console = Console()
    with _without_traceback():
        for name in names:
            console.print(escape(str(ensure_gguf(name, progress=shown_progress()))), soft_wrap=True, highlight=False)
            if convert:
                from cloud_teacher.model_files.conversion import ensure_folder

                console.print(escape(ensure_folder(name, progress=shown_progress())), soft_wrap=True, highlight=False)


@app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names from `gkt models list`. If unset, all models on this machine.")
    ] = None,
) -> None:
    """Compare model files with the sizes and digests of the catalogue. The status is 1 if one differs."""
    console = Console()
    catalog = Catalog.load()
    wrong = 0
    for name in names or [entry.name for entry in catalog.models.values() if gguf_path(entry).is_file()]:
        try:
            verify(name, progress=shown_progress())
        except GktError as error:
            wrong += 1
            console.print(f"[red]{escape(name)}: {escape(error.message)}[/red]", soft_wrap=True, highlight=False)
        else:
            console.print(f"[green]{escape(name)}: correct[/green]")
    if wrong:
        raise typer.Exit(1)


@contextmanager
def _without_traceback() -> Iterator[None]:
    """Print the message of a GktError without a traceback, and end with status 1."""
    try:
        yield
    except GktError as error:
        Console(stderr=True).print(f"[red]{escape(error.message)}[/red]", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
