"""Check the prose rules of CONTRIBUTING.md that a script can check, in every tracked Python file and page of documentation.

`python tools/prose.py` prints each violation as `file:line: advice: text`, and exits with 1 if there is one. `--count` prints
their number for each rule and package.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class TextKind(StrEnum):
    DOCSTRING = "docstring"
    COMMENT = "comment"
    STRING = "string"
    PAGE = "page"


PAGES = ("README.md", "CHANGELOG.md", "docs/*.md")
OWN = frozenset({"tools/prose.py", "tests/tools/test_prose.py"})
"""Files that have to spell what the rules reject."""


class Rule(NamedTuple):
    """`pattern` is searched in texts of the kinds that the rule is for."""

    name: str
    kinds: frozenset[TextKind]
    pattern: re.Pattern[str]
    advice: str


def _phrase(phrase: str, advice: str) -> Rule:
    words = r"\s+".join(phrase.split())
    return Rule(phrase, frozenset(TextKind), re.compile(rf"(?i)\b{words}\b"), f"'{phrase}': {advice}")


RULES = (
    Rule(
        "docstring-start",
        frozenset({TextKind.DOCSTRING}),
        re.compile(r"\A\s*(Of|That|What|Where|Whether|How|Who|So)\b"),
        "a docstring is a sentence or an imperative; it does not begin like this",
    ),
    Rule(
        "verbs",
        frozenset({TextKind.DOCSTRING, TextKind.COMMENT}),
        re.compile(
            r"(?i)(?<!`)\b(says?|said|tells?|told|hears?|heard|knows?|knew|wants?|doubts?|owes?)\b(?! (\w+ )?apart)"
        ),
        "software does not do this; write return, send, log, store, retry, reject, expire",
    ),
    _phrase("whoever", "name the component"),
    _phrase("nothing of", "write 'no' or 'not ... any'"),
    _phrase("but for", "write 'except'"),
    _phrase("so long", "write 'while' or the time that is meant"),
    _phrase("likewise", "repeat the verb"),
)


class Text(NamedTuple):
    kind: TextKind
    line: int
    content: str


class Violation(NamedTuple):
    path: str
    line: int
    rule: Rule
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule.advice}: {self.excerpt}"


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield every docstring: of modules, classes, functions, and of attributes (a bare string behind an assignment)."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in body:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if documented and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value
            documented = isinstance(statement, ast.Assign | ast.AnnAssign)


def texts(source: str) -> Iterator[Text]:
    """Yield the docstrings, comments and other strings of a module."""
    tree = ast.parse(source)
    of_docstrings = set()
    for constant in docstrings(tree):
        of_docstrings.add(constant)
        yield Text(TextKind.DOCSTRING, constant.lineno, str(constant.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in of_docstrings:
            yield Text(TextKind.STRING, node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(TextKind.COMMENT, token.start[0], token.string)


def check(path: str, source: str, rules: Sequence[Rule] = RULES) -> Iterator[Violation]:
    """Yield the violations in a Python file or a page."""
    for kind, line, content in texts(source) if path.endswith(".py") else [Text(TextKind.PAGE, 1, source)]:
        for rule in rules:
            if kind in rule.kinds and (match := rule.pattern.search(content)):
                before = content[: match.start()]
                excerpt = content[match.start() :].strip().splitlines()[0][:80]
                yield Violation(path, line + before.count("\n"), rule, excerpt)


def tracked_files(*patterns: str) -> list[str]:
    """Return the paths of the tracked files that match, in the working directory. A `*` matches slashes too."""
    command = ["git", "ls-files", "-z", "--", *patterns]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [path for path in listed if path and Path(path).is_file()]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the prose rules of CONTRIBUTING.md.")
    parser.add_argument("--count", action="store_true", help="print the violations of each rule in each package")
    options = parser.parse_args()
    found = [
        violation
        for path in tracked_files("*.py", *PAGES)
        if path not in OWN
        for violation in check(path, Path(path).read_text("utf-8"))
    ]
    if options.count:
        counts = Counter((violation.rule.name, violation.path.split("/")[0]) for violation in found)
        for (rule, package), count in sorted(counts.items()):
            print(f"{count:5} {rule} in {package}")
        return 0
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
