"""Measure the structure of the code: `make structure`, with `JSON=FILE` for the figures as JSON.

Each figure is printed with the value that it is to stay at or below; `--check` exits with 1 if one is above it. Every rule
looks at the tracked files of the working directory, so the script can measure the worktree of another commit as well.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tools.prose import RULES, check, tracked_files

SERVICES = ("cloud_teacher", "edge_student")


class Figure(NamedTuple):
    """`where` lists what was counted, for figures that count few places."""

    name: str
    title: str
    value: int
    wanted: int
    where: Sequence[str] = ()


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text("utf-8"))


def _modules(*folders: str) -> list[str]:
    return [path for folder in folders for path in tracked_files(f"{folder}/*.py")]


def _classes(*folders: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for path in _modules(*folders):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                yield path, node


def root_files(folder: str) -> int:
    """Count the modules directly in a folder, `__init__.py` included."""
    return sum(Path(path).parent == Path(folder) for path in _modules(folder))


def bad_docstrings() -> list[str]:
    """List the docstrings that break the first rule of prose, in tests too."""
    rules = [rule for rule in RULES if rule.name == "docstring-start"]
    return [
        f"{violation.path}:{violation.line}"
        for path in tracked_files("*.py")
        for violation in check(path, Path(path).read_text("utf-8"), rules)
    ]


SAMPLING_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"}
)


def sampling_copies() -> list[str]:
    """List the places that declare or copy the sampling fields: those that a new sampling option has to visit.

    A declaration is a class body that annotates at least four of the fields. A copy is a module that spells at least four of them
    as keyword arguments, as keys of dict displays, or as attributes of anything except `self`.
    """
    places = []
    for path in _modules(*SERVICES, "shared", "evaluation", "gkt"):
        spelled: set[object] = set()
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                declared = {
                    statement.target.id
                    for statement in node.body
                    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
                }
                if len(declared & SAMPLING_FIELDS) >= 4:
                    places.append(f"{path}: class {node.name}")
            elif isinstance(node, ast.keyword):
                spelled.add(node.arg)
            elif isinstance(node, ast.Dict):
                spelled |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
            elif isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                spelled.add(node.attr)
        if len(spelled & SAMPLING_FIELDS) >= 4:
            places.append(path)
    return places


REQUEST_PARTS = frozenset({"GuidanceRequest", "ReviewRequest", "Caller", "Prompt"})


def carrier_types() -> list[str]:
    """List the types that carry one request through the cloud.

    A class of `cloud_teacher` is a carrier if a field of it is called `request_id`, or is annotated with a request, its caller,
    its prompt or another carrier (as it is or optional, in no container). Fields are annotations in the class body and those
    parameters of `__init__` that are kept on `self`. Protocols are no carriers, and neither are the classes of `store` and the
    records that it imports to write them to the database.
    """
    records = {
        (node.module, alias.name)
        for path in _modules("cloud_teacher/store")
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    classes = {
        (path, node.name): dict(_fields(node))
        for path, node in _classes("cloud_teacher")
        if not path.startswith("cloud_teacher/store/")
        and (path.removesuffix(".py").replace("/", "."), node.name) not in records
        and not any(ast.unparse(base) == "Protocol" for base in node.bases)
    }
    carriers: set[tuple[str, str]] = set()
    while True:
        carried = REQUEST_PARTS | {name for _, name in carriers}
        more = {key for key, fields in classes.items() if "request_id" in fields or {*fields.values()} & carried}
        if more == carriers:
            return sorted(f"{path}: class {name}" for path, name in carriers)
        carriers = more


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield the name and annotation of each field, ` | None` removed."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, _required(statement.annotation)
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            parameters = [*statement.args.args, *statement.args.kwonlyargs]
            annotations = {parameter.arg: parameter.annotation for parameter in parameters}
            for inner in ast.walk(statement):
                if (
                    isinstance(inner, ast.Assign)
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id in annotations
                ):
                    annotation = annotations[inner.value.id]
                    if annotation is not None and isinstance(inner.targets[0], ast.Attribute):
                        yield inner.targets[0].attr, _required(annotation)


def _required(annotation: ast.expr) -> str:
    return ast.unparse(annotation).removesuffix(" | None")


def longest_class() -> tuple[int, str]:
    """Return the lines of the longest class in the two services, and its place."""
    return max(
        ((node.end_lineno or 0) - node.lineno + 1, f"{path}: class {node.name}") for path, node in _classes(*SERVICES)
    )


def figures() -> list[Figure]:
    lines, longest = longest_class()
    bad, copies, carriers = bad_docstrings(), sampling_copies(), carrier_types()
    evaluation_lines = sum(len(Path(path).read_text("utf-8").splitlines()) for path in _modules("evaluation"))
    return [
        *(
            Figure(f"root_files_{folder.replace('/', '_')}", f"modules at the root of {folder}", root_files(folder), 12)
            for folder in (*SERVICES, "evaluation", "evaluation/lab")
        ),
        Figure("bad_docstrings", "docstrings that break the first rule of prose", len(bad), 0, bad),
        Figure("sampling_copies", "places that declare or copy the sampling fields", len(copies), 4, copies),
        Figure("carrier_types", "types that carry one request through the cloud", len(carriers), 4, carriers),
        Figure("longest_class", "lines of the longest class in the two services", lines, 160, [longest]),
        Figure("evaluation_lines", "lines of evaluation/", evaluation_lines, 8_000),
        Figure("readme_words", "words in README.md", len(Path("README.md").read_text("utf-8").split()), 900),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the structure of the code.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file too")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is above what is wanted")
    parser.add_argument("--where", action="store_true", help="list the places that were counted")
    options = parser.parse_args()
    measured = figures()
    print(f"{'figure':48} {'JSON name':30} {'value':>6}  wanted")
    for figure in measured:
        mark = "" if figure.value <= figure.wanted else "  <-"
        print(f"{figure.title:48} {figure.name:30} {figure.value:6}  <= {figure.wanted}{mark}")
        if options.where:
            for place in figure.where:
                print(f"    {place}")
    if options.json:
        options.json.write_text(
            json.dumps({figure.name: figure.value for figure in measured}, indent=2) + "\n", "utf-8"
        )
    return 1 if options.check and any(figure.value > figure.wanted for figure in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
