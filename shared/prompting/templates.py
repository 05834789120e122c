"""Guidance templates as versioned files, for requests to the teacher and for the student's view of an outline.

`prompts/NAME/VERSION.md` has YAML front matter and a Jinja body, which becomes the last user message:

    ---
    name: answer
    version: 1
    summary: one line
    system: optional; instructions added to the system message
    conversation: optional; `last` keeps only the system message and the last user message, `all` (default) every message
    ---
    {{ question }}

`question` is the last user message, and `answer`, in a template for the student, the teacher's outline. Both are data: they are
never evaluated. Files are checked when they are loaded; `ConfigurationError` names the file and the problem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import jinja2
import yaml
from jinja2 import nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ConfigurationError, InvalidRequest, UnknownTemplate
from shared.protocol.guidance import Message
from shared.validation import describe

FENCE = "---\n"
NEEDED, OPTIONAL = frozenset({"question"}), frozenset({"answer"})
"""Variables of a body."""
MAX_USES = 10
"""Most places of a body that use a variable: each adds a whole question or answer to the prompt."""
_NODES = (
    nodes.And,
    nodes.Compare,
    nodes.Const,
    nodes.If,
    nodes.Name,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.TemplateData,
)
_FILTERS = frozenset({"length", "lower", "trim", "upper"})
"""A body has text, variables, these filters and conditions: rendering it takes no longer than reading it."""


class FrontMatter(BaseModel):
    """Front matter of a template. An unknown or mistyped key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60)]
    version: Annotated[int, Field(ge=1)]
    summary: Annotated[str, Field(min_length=1)]
    system: Annotated[str, Field(min_length=1)] | None = None
    conversation: Literal["all", "last"] = "all"


@dataclass(frozen=True)
class Template:
    """One version of a template."""

    name: str
    version: int
    summary: str
    system: str | None
    conversation: Literal["all", "last"]
    takes_answer: bool
    """True for a template that shows the student an outline."""
    digest: str
    """First 8 hex digits of the file's sha256."""
    content: str = field(repr=False)
    """The whole file."""
    body: jinja2.Template = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """Name in reports: `name@version#digest`."""
        return f"{self.name}@{self.version}#{self.digest}"

    def apply(self, messages: Sequence[Message], *, answer: str = "") -> list[Message]:
        """Return the conversation for a model; `messages` are not changed.

        The body replaces the last user message. `system` is appended to the first message if that is a system message, and is
        put in front as one otherwise. A conversation without a user message gets no body.
        """
        applied = list(messages)
        for place in reversed(range(len(applied))):
            if applied[place].role == "user":
                body = self._render(applied[place].content, answer)
                applied[place] = Message(role="user", content=body)
                if self.conversation == "last":
                    applied = [message for message in applied[:1] if place and message.role == "system"] + applied[
                        place:
                    ]
                break
        if self.system is None:
            return applied
        if applied and applied[0].role == "system":
            return [Message(role="system", content=f"{applied[0].content}\n\n{self.system}"), *applied[1:]]
        return [Message(role="system", content=self.system), *applied]

    def _render(self, question: str, answer: str) -> str:
        try:
            return self.body.render(question=question, answer=answer)
        except Exception as error:
            raise InvalidRequest(f"template {self.identity} does not render: {error}", param="template") from error


class Templates:
    """All templates, by `name`, `name@version`, `name@label` or `name@version#digest`.

    A name alone means the version with the label `production`, or else the newest. `latest` is always the newest.
    """

    def __init__(self, templates: Iterable[Template], labels: Mapping[tuple[str, str], int] | None = None) -> None:
        """`labels` maps (name, label) to a version."""
        self._all = sorted(templates, key=lambda template: (template.name, template.version))
        self._by_reference: dict[str, Template] = {}
        for template in self._all:  # the newest version comes last
            name = template.name
            for reference in (name, f"{name}@latest", f"{name}@{template.version}", template.identity):
                self._by_reference[reference] = template
        for (name, label), version in (labels or {}).items():
            labelled = self._by_reference.get(f"{name}@{version}")
            if labelled:
                self._by_reference[f"{name}@{label}"] = labelled
                if label == "production":
                    self._by_reference[name] = labelled

    @classmethod
    def load(cls, path: Path | None = None) -> Templates:
        """Read a folder of templates, by default the package's own. Raises ConfigurationError."""
        root: Traversable = resources.files("prompts") if path is None else path
        if not root.is_dir():
            raise ConfigurationError(f"{root}: no such folder of templates")
        folders = sorted((entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
        files = [(folder.name, file) for folder in folders for file in folder.iterdir() if file.name.endswith(".md")]
        if not files:
            raise ConfigurationError(f"{root}: no templates found; expected files NAME/VERSION.md")
        return cls(_read(name, file) for name, file in files)

    def __iter__(self) -> Iterator[Template]:
        return iter(self._all)

    def get(self, reference: str) -> Template:
        """Return a template, by default its newest version. Raises UnknownTemplate, which lists the available ones."""
        template = self._by_reference.get(reference)
        if template is None:
            known = ", ".join(f"{template.name}@{template.version}" for template in self._all)
            raise UnknownTemplate(f"template {reference!r} not found; available templates: {known}", param="template")
        return template


def _read(folder: str, file: Traversable) -> Template:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    template = parse_template(data, source=str(file))
    if (template.name, f"{template.version}.md") != (folder, file.name):
        raise ConfigurationError(
            f"{file}: holds {template.name}@{template.version}, which belongs in {template.name}/{template.version}.md"
        )
    return template


def parse_template(data: bytes, *, source: str) -> Template:
    """Return the template that a file's content holds. Raises ConfigurationError, which names `source` and the problem."""
    try:
        front, body = split_template(data.decode().replace("\r\n", "\n"))
        matter = FrontMatter.model_validate(load_front_matter(front))
        compiled, used = _compile(body)
        return Template(
            name=matter.name,
            version=matter.version,
            summary=matter.summary,
            system=matter.system,
            conversation=matter.conversation,
            takes_answer="answer" in used,
            digest=hashlib.sha256(data).hexdigest()[:8],
            content=data.decode(),
            body=compiled,
        )
    except ValidationError as error:
        raise ConfigurationError(f"{source}: front matter: {describe(error)}") from error
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"{source}: body, line {error.lineno}: {error.message}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source}: front matter is not YAML: {error}") from error
    except (RecursionError, SyntaxError, MemoryError) as error:
        raise ConfigurationError(f"{source}: it is nested too deeply") from error
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from error


def load_front_matter(front: str) -> Any:
    """Return the fields of a front matter. Raises yaml.YAMLError, ValueError for aliases, which could grow without bound."""
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(front)):
        raise ValueError("the front matter has a YAML alias; write the value out")
    return yaml.safe_load(front)


def split_template(text: str) -> tuple[str, str]:
    """Return front matter and body. Raises ValueError. The last line end belongs to the file, not to the message."""
    if not text.startswith(FENCE):
        raise ValueError("expected front matter (---) at the start")
    front, fence, body = text.removeprefix(FENCE).partition("\n" + FENCE)
    if not fence:
        raise ValueError("expected a line --- at the end of the front matter")
    return front, body.strip("\n")


def _compile(body: str) -> tuple[jinja2.Template, set[str]]:
    """Return the compiled body and its variables."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    tree = environment.parse(body)
    for node in tree.find_all(nodes.Node):
        allowed = isinstance(node, _NODES) or (
            isinstance(node, nodes.Filter) and node.name in _FILTERS and not node.args and not node.kwargs
        )
        if not allowed:
            what = getattr(node, "name", None) or type(node).__name__
            known = ", ".join(sorted(_FILTERS))
            raise ValueError(
                f"body, line {node.lineno}: {what} is not allowed; allowed are variables, `if` and the filters {known}"
            )
    if (uses := sum(1 for _ in tree.find_all(nodes.Name))) > MAX_USES:
        raise ValueError(f"the body uses variables in {uses} places; the limit is {MAX_USES}")
    used = find_undeclared_variables(tree)
    if unknown := used - NEEDED - OPTIONAL:
        known = ", ".join(sorted(NEEDED | OPTIONAL))
        raise ValueError(f"unknown variable {', '.join(sorted(unknown))}; available variables: {known}")
    if missing := NEEDED - used:
        raise ValueError(f"the body does not use {', '.join(sorted(missing))}")
    return environment.from_string(body), used
