"""`gkt`: the command line. A command's imports run when it is called, so that `gkt --help` is fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from gkt.terminal.sanitize import plain
from shared.errors import GktError


class _Command(NamedTuple):
    module: str
    """Module that has the command's Typer app, as `app`."""
    summary: str


COMMANDS = {
    "up": _Command(
        "gkt.commands.up",
        "Start a cloud and an edge on this machine: the quickest way to try gkt.",
    ),
    "ask": _Command("gkt.commands.ask", "Ask a question and see who writes the answer, in two colours."),
    "cloud": _Command("gkt.commands.cloud", "Start a cloud: the teacher, on vLLM."),
    "edge": _Command("gkt.commands.edge", "Start an edge for clients: the student, on llama.cpp."),
    "demo": _Command("gkt.commands.demo", "Show answers over links of every kind, and over a cut cable."),
    "wan": _Command("wan.commands", "Emulate a wide-area link that can be slow, lossy or dead while requests run."),
    "keys": _Command("gkt.commands.keys", "Create, list, revoke and rotate the cloud's API keys, with their limits."),
    "prompts": _Command("gkt.commands.prompts", "Manage versions and labels of guidance templates."),
    "policies": _Command("gkt.commands.policies", "Manage versions and labels of policies."),
    "usage": _Command("gkt.commands.usage", "Report the cloud's usage, by key and day."),
    "models": _Command("gkt.commands.models", "List, fetch and verify the models of the catalogue."),
    "bench": _Command(
        "evaluation.bench.cli", "Measure guided answers on this machine; prints a table, and JSON with --json."
    ),
    "chaos": _Command("evaluation.chaos.cli", "Inject faults into running services, and check that no answer is lost."),
    "eval": _Command("evaluation.lab.cli", "Evaluate the modes: accuracy, cost and latency of guidance."),
    "experiment": _Command("gkt.commands.experiment", "Simulate experiments: how often the statistics err."),
    "tune": _Command(
        "evaluation.lab.tuning.cli",
        "Find the cheapest policy that keeps the teacher's accuracy, and write it to a policy file.",
    ),
}


class _Lazy(TyperGroup):
    """Replaces a placeholder by its real command when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            module = importlib.import_module(COMMANDS[args[0]].module)
            self.commands[args[0]] = typer.main.get_command(module.app)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="gkt",
    cls=_Lazy,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # such tracebacks show local variables, which may include a key
    help="A large teacher in the cloud begins the answer; a small student on the edge finishes it.\n\n"
    'Try it: run `gkt up` in one terminal and `gkt ask "Why is the sky blue?"` in another. The edge implements OpenAI\'s API, so '
    "any OpenAI client can use it.\n\n"
    "Settings come from the environment: GKT_CLOUD_... for the cloud, GKT_EDGE_... for the edge (docs/reference/configuration.md "
    "lists them), GKT_HOME for the folder of models and logs. Options of a command override the environment.",
)


def _placeholder() -> None:
    """Stand in for a command; never called."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.summary)(_placeholder)


@app.callback()
def _root() -> None:
    """Keep `gkt` a group of commands."""


def main() -> NoReturn:
    """Run `gkt`. A GktError is one line on standard error and status 1; wrong usage has status 2."""
    try:
        app()
    except GktError as error:
        message = " ".join(plain(error.message).split())
        Console(stderr=True).print(f"[red]gkt:[/red] {escape(message)}", soft_wrap=True, highlight=False)
    sys.exit(1)


if __name__ == "__main__":
    main()
