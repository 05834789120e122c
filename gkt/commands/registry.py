"""`gkt prompts` and `gkt policies`: versions and labels in the cloud's registry."""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gkt.terminal.sanitize import plain
from shared.errors import ConfigurationError, GktError

if TYPE_CHECKING:
    from cloud_teacher.registry.artifacts import Kind, Move, Version
    from cloud_teacher.registry.service import Registry

T = TypeVar("T")

SUFFIXES = {"template": ".md", "policy": ".json"}
Name = Annotated[str, typer.Argument(help="Name of the template or policy.")]
Reference = Annotated[str, typer.Argument(help="`name`, `name@3`, `name@label` or `name@3#digest`.")]
Label = Annotated[str, typer.Argument(help="Label, such as `production` or `candidate`.")]
Author = Annotated[str, typer.Option(help="Author that the history records.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Reason that the history records.")]


def build_app(kind_name: str, plural: str) -> typer.Typer:
    """Return the commands for one kind of artifact."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        help=f"Manage versions and labels of {plural} in the cloud's registry.\n\n"
        "The registry is in the database of GKT_CLOUD_STORE_URL, which the cloud must use too. Every replica follows within "
        "two seconds. A bare name means the label `production`, or the newest version if that label is not set.",
    )

    @app.command("list")
    def list_(name: Annotated[str | None, typer.Argument(help="Show the versions of this one.")] = None) -> None:
        """List all names with their labels, or the versions of one name."""

        async def tables(registry: Registry) -> Table:
            kind = _kind(kind_name)
            return _versions(registry, kind, name) if name else _names(registry, kind)

        Console().print(_run(tables))

    @app.command()
    def show(reference: Reference) -> None:
        """Print the content of a version."""

        async def content(registry: Registry) -> Version:
            return registry.get(_kind(kind_name), reference)

        typer.echo(_shown(_run(content).content), nl=False)

    @app.command()
    def diff(
        first: Reference, second: Annotated[str | None, typer.Argument(help="If unset, the newest version.")] = None
    ) -> None:
        """Print what changed between two versions."""

        async def both(registry: Registry) -> tuple[Version, Version]:
            kind = _kind(kind_name)
            name = first.partition("@")[0]
            return registry.get(kind, first), registry.get(kind, second or f"{name}@latest")

        old, new = _run(both)
        lines = difflib.unified_diff(
            old.content.splitlines(), new.content.splitlines(), old.identity, new.identity, lineterm=""
        )
        typer.echo(_shown("\n".join(lines)))

    @app.command()
    def push(
        name: Name,
        file: Annotated[Path, typer.Argument(help="File with the content.")],
        *,
        message: Annotated[str, typer.Option("--message", "-m", help="What changed, and why.")] = "",
        label: Annotated[str | None, typer.Option(help="Label to point at the new version.")] = None,
        author: Author = "local",
    ) -> None:
        """Add a version. Content that equals the newest version's adds none."""
        content = _read(file)

        async def pushed(registry: Registry) -> Version:
            kind = _kind(kind_name)
            _check(label)
            version = await registry.push(kind, name, content, author=author, message=message)
            if label:
                await registry.move(kind, name, label, str(version.version), author=author, reason=message)
            return version

        typer.echo(_run(pushed).identity)

    @app.command("label")
    def label_(
        reference: Reference,
        label: Label,
        *,
        remove: Annotated[bool, typer.Option("--remove", help="Remove the label instead.")] = False,
        reason: Reason = "",
        author: Author = "local",
    ) -> None:
        """Point a label at a version.

        Example: gkt prompts label maths@4 production -m "right on 3 points more"
        """

        async def moved(registry: Registry) -> Move:
            kind = _kind(kind_name)
            name, _, selector = reference.partition("@")
            target = None if remove else selector or str(registry.get(kind, reference).version)
            return await registry.move(kind, name, label, target, author=author, reason=reason)

        typer.echo(_moved(_run(moved)))

    @app.command()
    def history(name: Name, label: Annotated[str | None, typer.Argument(help="Only this label.")] = None) -> None:
        """List the moves of labels, newest first."""

        async def found(registry: Registry) -> list[Move]:
            return await registry.moves(_kind(kind_name), name, label)

        table = Table("time (UTC)", "move", "author", "reason", box=None, header_style="bold")
        for move in _run(found):
            table.add_row(_instant(move.moved_ms), _moved(move), _cell(move.author), _cell(move.reason))
        Console().print(table)

    @app.command()
    def rollback(name: Name, label: Label = "production", *, reason: Reason = "", author: Author = "local") -> None:
        """Undo the last move of a label."""

        async def moved(registry: Registry) -> Move:
            return await registry.rollback(_kind(kind_name), name, label, author=author, reason=reason)

        typer.echo(_moved(_run(moved)))

    @app.command()
    def export(folder: Annotated[Path, typer.Argument(help="Folder for the files; it is created.")]) -> None:
        """Write what each name means now into files, to review them by pull request. Packaged templates are left out."""

        async def current(registry: Registry) -> list[Version]:
            from cloud_teacher.registry.service import PACKAGE

            kind = _kind(kind_name)
            found = [registry.get(kind, name) for name in registry.names(kind)]
            return [version for version in found if version.author != PACKAGE]

        versions = _run(current)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for version in versions:
                (folder / f"{version.name}{SUFFIXES[kind_name]}").write_text(version.content, "utf-8")
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from None
        typer.echo(f"{len(versions)} files in {folder}")

    @app.command("import")
    def import_(
        folder: Annotated[Path, typer.Argument(help="Folder with files as `export` writes them.")],
        *,
        message: Annotated[str, typer.Option("--message", "-m", help="What changed, and why.")] = "",
        label: Annotated[str | None, typer.Option(help="Label to point at the imported versions.")] = None,
        author: Author = "local",
    ) -> None:
        """Push every file of a folder. A file that equals what its name means now adds no version."""
        files = sorted(folder.glob(f"*{SUFFIXES[kind_name]}"))
        if not files:
            raise ConfigurationError(f"{folder} has no files NAME{SUFFIXES[kind_name]}")
        contents = {file.stem: _read(file) for file in files}

        async def pushed(registry: Registry) -> list[Version]:
            kind = _kind(kind_name)
            _check(label)
            for name, content in contents.items():
                _check_content(kind, name, content)  # all of them before the first is pushed
            versions = []
            for name, content in contents.items():
                if name in registry.names(kind) and registry.get(kind, name).content == content:
                    continue
                version = await registry.push(kind, name, content, author=author, message=message)
                if label and registry.labels(kind, name).get(label) != version.version:
                    await registry.move(kind, name, label, str(version.version), author=author, reason=message)
                versions.append(version)
            return versions

        for version in _run(pushed):
            typer.echo(version.identity)

    return app


def _run(work: Callable[[Registry], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with _registry() as registry:
            return await work(registry)

    try:
        return asyncio.run(opened())
    except GktError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(error.message) from None


@asynccontextmanager
async def _registry() -> AsyncGenerator[Registry]:
    """Open the registry in the database of GKT_CLOUD_STORE_URL. Raises ConfigurationError."""
    from cloud_teacher.registry.service import Registry
    from gkt.local.store import store_url
    from shared.prompting.templates import Templates

    url = store_url()
    from cloud_teacher.store.storage import Storage

    storage = await asyncio.to_thread(Storage, url)
    try:
        registry = Registry(Templates.load(), storage.registry)
        await registry.read()
        yield registry
    finally:
        await asyncio.to_thread(storage.close)


def _check(label: str | None) -> None:
    from cloud_teacher.registry.artifacts import check_label

    if label is not None:
        check_label(label)


def _check_content(kind: Kind, name: str, content: str) -> None:
    """Raises ConfigurationError, which names the file."""
    from cloud_teacher.registry.artifacts import canonical, check_name

    try:
        canonical(kind, check_name(name), content, 1)
    except GktError as error:
        raise ConfigurationError(f"{name}{SUFFIXES[kind]}: {error.message}") from None


def _shown(text: str) -> str:
    """Return content for the output. A terminal gets no control characters of others."""
    return plain(text) if sys.stdout.isatty() else text


def _cell(text: str) -> str:
    return escape(plain(text))


def _kind(name: str) -> Kind:
    from cloud_teacher.registry.artifacts import Kind

    return Kind(name)


def _names(registry: Registry, kind: Kind) -> Table:
    table = Table("name", "versions", "labels", box=None, header_style="bold")
    for name in registry.names(kind):
        labels = ", ".join(f"{label} {version}" for label, version in registry.labels(kind, name).items())
        table.add_row(name, str(len(registry.versions(kind, name))), labels)
    return table


def _versions(registry: Registry, kind: Kind, name: str) -> Table:
    registry.get(kind, f"{name}@latest")
    table = Table("version", "labels", "digest", "author", "time (UTC)", "message", box=None, header_style="bold")
    labels = registry.labels(kind, name)
    for version in reversed(registry.versions(kind, name)):
        pointing = ", ".join(label for label, number in labels.items() if number == version.version)
        time = _instant(version.created_ms) if version.created_ms else ""
        table.add_row(
            str(version.version),
            pointing,
            version.digest[:8],
            _cell(version.author),
            time,
            _cell(version.message.partition("\n")[0]),
        )
    return table


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def _moved(move: Move) -> str:
    old = "new" if move.from_version is None else str(move.from_version)
    new = "removed" if move.to_version is None else str(move.to_version)
    return f"{move.name}: {move.label} {old} -> {new}"


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
