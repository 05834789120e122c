"""`gkt eval`: the laboratory. Each of its subcommands has a module."""

from __future__ import annotations

import typer

from shared.errors import ConfigurationError

try:
    from evaluation.lab.report.cli import report
    from evaluation.lab.report.compare import compare
    from evaluation.lab.results.cli import log
    from evaluation.lab.runs.cli import run
except ModuleNotFoundError as error:
    if error.name not in {"numpy", "scipy"}:
        raise
    raise ConfigurationError(f"gkt eval needs {error.name}: pip install 'gkt[eval]'") from error

app = typer.Typer(name="eval", no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.command()(run)
app.command()(compare)
app.command()(report)
app.command()(log)


@app.callback()
def _root() -> None:
    """The laboratory: how much guidance is worth, and how much is enough."""
