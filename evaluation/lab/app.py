"""`gkt eval`: its subcommands, each from a module of its own."""

from __future__ import annotations

import typer

from evaluation.lab import commands, inspect_log

app = typer.Typer(name="eval", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Measure what guidance is worth: run a task's questions under several arms."""


app.command("run")(commands.run)
app.command("log")(inspect_log.log)
