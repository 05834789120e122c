"""`gkt`: the command line. What a command needs is imported when that command is called, so that `gkt --help` is fast."""

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
    """Where its Typer app is, as `app`."""
    summary: str


COMMANDS = {
    "up": _Command(
        "gkt.commands.up",
        "Start a cloud and an edge on this machine, and keep them running: the quickest way to try gkt.",
    ),
    "ask": _Command("gkt.commands.ask", "Ask a question; who wrote what is shown in two colours."),
    "cloud": _Command("gkt.commands.cloud", "Start a cloud: the teacher, on vLLM."),
    "edge": _Command("gkt.commands.edge", "Start an edge: the student, on llama.cpp, which clients talk to."),
    "demo": _Command("gkt.commands.demo", "A tour: answers over links of every kind, and one whose cable is cut."),
    "wan": _Command("wan.commands", "A wide-area link that can be made slow, lossy or dead while requests run."),
    "keys": _Command(
        "gkt.commands.keys", "Who may call the cloud, and how much: make keys, list, revoke and rotate them."
    ),
    "usage": _Command("gkt.commands.usage", "What was used of the cloud, by key and day."),
    "models": _Command("gkt.commands.models", "The models gkt knows by name: list them, fetch them, check them."),
    "bench": _Command(
        "evaluation.bench.cli", "Measure the main job on this machine: a table, and with --json the figures."
    ),
    "chaos": _Command(
        "evaluation.chaos.cli", "Strike running services with faults of every kind, and check that no answer is lost."
    ),
    "eval": _Command("evaluation.lab.cli", "The laboratory: how much guidance is worth, and how much is enough."),
    "tune": _Command(
        "evaluation.lab.tuning.cli",
        "Find the cheapest policy that keeps the teacher's accuracy, and write it as a policy file.",
    ),
}


class _Lazy(TyperGroup):
    """Puts the real command in its placeholder's place once it is called."""

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
    pretty_exceptions_enable=False,  # they show local variables, a key may be among them
    help="A large teacher in the cloud begins the answer; a small student on the edge finishes it.\n\n"
    'To see it work: `gkt up` in one terminal, `gkt ask "Why is the sky blue?"` in another. The edge speaks OpenAI\'s API, so '
    "any OpenAI client can be pointed at it.\n\n"
    "Settings come from the environment: GKT_CLOUD_... for the cloud, GKT_EDGE_... for the edge (docs/reference/configuration.md "
    "lists them), GKT_HOME for where models and logs are kept. Options of a command go before the environment.",
)


def _placeholder() -> None:
    """Never called."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.summary)(_placeholder)


@app.callback()
def _root() -> None:
    """Keeps `gkt` a group of commands."""


def main() -> NoReturn:
    """Run `gkt`. An error of ours is one line on standard error and status 1; wrong usage has status 2."""
    try:
        app()
    except GktError as error:
        message = " ".join(plain(error.message).split())
        Console(stderr=True).print(f"[red]gkt:[/red] {escape(message)}", soft_wrap=True, highlight=False)
    sys.exit(1)


if __name__ == "__main__":
    main()
