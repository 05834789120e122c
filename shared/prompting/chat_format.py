"""Conversion of conversations to token ids by a chat template. Only the template itself can produce control tokens.

A reference tokenizer renders the conversation to one string and then looks for control tokens in it, so
`<|im_start|>system` typed by a user becomes a system turn. Here the contents are disarmed before they are rendered:

1. In each content the first character of every control token becomes a stand-in, a private character that occurs
   nowhere in the conversation. The same happens to the first character of text that could become a control token
   together with its neighbours: an end that begins one, a start that finishes one. No length changes, and most contents
   stay as they are, so templates that strip, measure or search them work as usual.
2. The template is rendered, and the text is split at control tokens. All of these come from the template.
3. In the text between them, stand-ins are replaced by the original characters, and it is tokenized as plain text.

llama.cpp's own template engine marks the user's strings for the same purpose (`common/jinja/README.md`, "Input
marking"). Jinja2 has no such marks. Stand-ins have a limit: a template that cuts parts out of the *middle* of a content
and joins the rest could still produce a control token. No known chat template does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import ConfigurationError, InvalidRequest
from shared.prompting.control_tokens import ContentDisarmer, token_pattern
from shared.protocol.guidance import Message

UNICODE_WHITESPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Characters with the property White_Space, as Rust's `\\s` has it. Python's `str.strip` also removes U+001C to U+001F."""
PROBE = "Probe: <tool_call> 1234 don't naïve 東京 👍🏽\n\n\tx = [0]  "


class ChatFormat:
    """A chat template together with the tokenizer it was written for.

    `tokenize` turns plain text after a control token into ids, and treats the spelling of control tokens as text;
    `tokenize_start` does the same at the start of a prompt, for tokenizers that differ there. `variables` are the
    template's (`bos_token`, ...). Control tokens in `strip_before` and `strip_after` remove the `whitespace` on that side
    of them (Hugging Face's `lstrip` and `rstrip`). Raises `ConfigurationError` if the template is not valid. Threads may
    share an instance.
    """

    def __init__(
        self,
        template: str,
        *,
        control_tokens: Mapping[str, int],
        tokenize: Callable[[str], list[int]],
        tokenize_start: Callable[[str], list[int]] | None = None,
        variables: Mapping[str, str] | None = None,
        strip_before: Collection[str] = (),
        strip_after: Collection[str] = (),
        whitespace: str = UNICODE_WHITESPACE,
    ) -> None:
        self._template = _compile(template)
        self._variables = dict(variables or {})
        self._ids = {text: token for text, token in control_tokens.items() if text}
        self._control_ids = frozenset(self._ids.values())
        self._tokenize = tokenize
        self._tokenize_start = tokenize_start or tokenize
        self._strip_before = frozenset(strip_before)
        self._strip_after = frozenset(strip_after)
        self._whitespace = whitespace
        self._pattern = token_pattern(self._ids)
        self._disarm = ContentDisarmer(self._ids, self._pattern, template + "".join(self._variables.values()))
        self.fingerprint = self._fingerprint(template)
        """Short hex digest, equal for formats that turn conversations into the same ids."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt with its generation prompt as text, as the reference renders it.

        Raises InvalidRequest if the template rejects the conversation.
        """
        return self._render(_turns(messages))

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt with its generation prompt as ids.

        They are the reference tokenizer's ids, except where a content would produce or finish a control token.
        Raises InvalidRequest if the template rejects the conversation.
        """
        turns, originals = self._disarm(_turns(messages))
        prompt = self._render(turns)
        parts = self._pattern.split(prompt) if self._pattern else [prompt]
        ids: list[int] = []
        for place in range(0, len(parts), 2):  # a run, a token, a run, ..., a run
            run = parts[place].translate(originals)
            if place and parts[place - 1] in self._strip_after:
                run = run.lstrip(self._whitespace)
            if place + 1 < len(parts) and parts[place + 1] in self._strip_before:
                run = run.rstrip(self._whitespace)
            if run:
                ids += self._plain(run, self._tokenize if place else self._tokenize_start)
            if place + 1 < len(parts):
                ids.append(self._ids[parts[place + 1]])
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Return the ids of text that continues a prompt. None of them is a control token."""
        return self._plain(text, self._tokenize) if text else []

    def _plain(self, text: str, tokenize: Callable[[str], list[int]]) -> list[int]:
        """Return the ids of plain text. Split the text if merges produce a control token (SentencePiece may)."""
        ids = tokenize(text)
        if len(text) < 2 or self._control_ids.isdisjoint(ids):
            return ids
        middle = len(text) // 2
        return self._plain(text[:middle], tokenize) + self._plain(text[middle:], self._tokenize)

    def _render(self, turns: list[dict[str, str]]) -> str:
        try:
            # The variables of transformers. Without thinking, templates write an empty block of thoughts.
            text = self._template.render(
                {
                    **self._variables,
                    "messages": turns,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": True,
                    "enable_thinking": False,
                }
            )
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"a message is not valid Unicode: {error.reason}", param="messages") from error
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            message = str(error) or type(error).__name__
            raise InvalidRequest(
                f"the model's chat template refuses this conversation: {message}", param="messages"
            ) from error
        return text

    def _fingerprint(self, template: str) -> str:
        stripping = [sorted(self._strip_before), sorted(self._strip_after)]
        parts = [template, sorted(self._variables.items()), sorted(self._ids.items()), stripping, self._tokenize(PROBE)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


class _Generation(Extension):
    """Ignores `{% generation %}`, which marks the assistant's part for training."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _compile(template: str) -> jinja2.Template:
    """Compile a template in the environment of `transformers.utils.chat_template_utils`, which templates expect."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"the chat template is not valid, line {error.lineno}: {error.message}") from error
