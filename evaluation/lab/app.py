"""`gkt eval`: the laboratory."""

from __future__ import annotations

import typer

from shared.errors import ConfigurationError

try:
    from evaluation.lab.compare import compare
    from evaluation.lab.report import report
except ModuleNotFoundError as error:
    if error.name not in {"numpy", "scipy"}:
        raise
    raise ConfigurationError(f"gkt eval needs {error.name}: pip install 'gkt[eval]'") from error

app = typer.Typer(name="eval", no_args_is_help=True, rich_markup_mode="markdown")
app.command()(compare)
app.command()(report)

if __name__ == "__main__":
    app()
