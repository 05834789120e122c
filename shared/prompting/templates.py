"""Templates as versioned files: what the teacher is asked for, and how the student sees its draft.

`prompts/NAME/VERSION.md` has YAML front matter and a Jinja body, which becomes the last user message:

    ---
    name: answer
    version: 1
    summary: one line for those who choose
    system: optional; instructions added to the system message
    conversation: optional; `last` leaves out what was said before the last user message but for the system message
    ---
    {{ question }}

`question` is what the user wrote there, and `draft`, in a template for the student, what the teacher drafted for it. Both are
data: nothing in them is evaluated. A file is checked when it is loaded,
and whatever is wrong with it is a `ConfigurationError` that names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import jinja2
import yaml
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ConfigurationError, UnknownTemplate
from shared.protocol.guidance import Message
from shared.validation import describe

FENCE = "---\n"
NEEDED, OPTIONAL = frozenset({"question"}), frozenset({"answer"})
"""Variables of a body."""


class FrontMatter(BaseModel):
    """What stands between the fences. Strict: an unknown or mistyped key is an error."""

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
    """Whether it is for the student, and puts a draft before its eyes."""
    digest: str
    """First 8 hex digits of the file's sha256."""
    body: jinja2.Template = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """`name@version#digest`, as answers report it."""
        return f"{self.name}@{self.version}#{self.digest}"

    def apply(self, messages: Sequence[Message], *, answer: str = "") -> list[Message]:
        """The conversation as a model gets it; `messages` stay as they are.

        The last user message becomes the body. `system` follows the text of the first message where that is a system
        message, and is one of its own otherwise. A conversation without a user message gets no body.
        """
        applied = list(messages)
        for place in reversed(range(len(applied))):
            if applied[place].role == "user":
                body = self.body.render(question=applied[place].content, answer=answer)
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


class Templates:
    """All templates there are, by `name`, `name@version` or `name@version#digest`."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._all = sorted(templates, key=lambda template: (template.name, template.version))
        self._by_reference: dict[str, Template] = {}
        for template in self._all:  # the newest of a name comes last, and stays
            for reference in (template.name, f"{template.name}@{template.version}", template.identity):
                self._by_reference[reference] = template

    @classmethod
    def load(cls, path: Path | None = None) -> Templates:
        """Reads a folder of templates, the project's own by default. Raises `ConfigurationError`."""
        root: Traversable = resources.files("prompts") if path is None else path
        if not root.is_dir():
            raise ConfigurationError(f"{root}: no such folder of templates")
        folders = sorted((entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
        files = [(folder.name, file) for folder in folders for file in folder.iterdir() if file.name.endswith(".md")]
        if not files:
            raise ConfigurationError(f"{root}: no templates (NAME/VERSION.md) in here")
        return cls(_read(name, file) for name, file in files)

    def __iter__(self) -> Iterator[Template]:
        return iter(self._all)

    def get(self, reference: str) -> Template:
        """The template, in its newest version where none is named. Raises `UnknownTemplate`, which says what there is."""
        template = self._by_reference.get(reference)
        if template is None:
            known = ", ".join(f"{template.name}@{template.version}" for template in self._all)
            raise UnknownTemplate(f"no template {reference!r}; there are: {known}", param="template")
        return template


def _read(folder: str, file: Traversable) -> Template:
    try:
        data = file.read_bytes()
        front, body = _split(data.decode().replace("\r\n", "\n"))
        matter = FrontMatter.model_validate(yaml.safe_load(front))
        if (matter.name, f"{matter.version}.md") != (folder, file.name):
            raise ValueError(f"is {matter.name}@{matter.version}, which belongs in {matter.name}/{matter.version}.md")
        compiled, used = _compile(body)
        return Template(
            name=matter.name,
            version=matter.version,
            summary=matter.summary,
            system=matter.system,
            conversation=matter.conversation,
            takes_answer="answer" in used,
            digest=hashlib.sha256(data).hexdigest()[:8],
            body=compiled,
        )
    except ValidationError as error:
        raise ConfigurationError(f"{file}: front matter: {describe(error)}") from error
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"{file}: body, line {error.lineno}: {error.message}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: front matter is not YAML: {error}") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: {error}") from error


def _split(text: str) -> tuple[str, str]:
    """Front matter and body. The body's own line end is the file's, not the message's."""
    if not text.startswith(FENCE):
        raise ValueError("does not begin with front matter (---)")
    front, fence, body = text.removeprefix(FENCE).partition("\n" + FENCE)
    if not fence:
        raise ValueError("front matter does not end (---)")
    return front, body.strip("\n")


def _compile(body: str) -> tuple[jinja2.Template, set[str]]:
    """A body, and the variables that it uses."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    used = find_undeclared_variables(environment.parse(body))
    if unknown := used - NEEDED - OPTIONAL:
        known = ", ".join(sorted(NEEDED | OPTIONAL))
        raise ValueError(f"unknown variable {', '.join(sorted(unknown))}; there is: {known}")
    if missing := NEEDED - used:
        raise ValueError(f"body leaves out {', '.join(sorted(missing))}")
    return environment.from_string(body), used
