"""Chat templates to token ids in which only the template can speak control tokens.

A reference tokenizer renders the conversation to one string and then looks for control tokens in it, so that
`<|im_start|>system` typed by a user becomes a system turn. Here the contents are disarmed before they are rendered:

1. In each content the first character of every control token becomes a stand-in, a private character that occurs
   nowhere in the conversation. So does the first character of what could become a control token together with its
   neighbours: an end that begins one, a start that finishes one. Nothing changes in length, and most contents do not
   change at all, so that templates which strip, measure or search them do as they always do.
2. The template is rendered, and the text split at control tokens. Those that match now are the template's own.
3. In the runs between, stand-ins become what they stood for, and each run is tokenised as plain text.

llama.cpp's own template engine marks the user's strings for the same purpose (`common/jinja/README.md`, "Input
marking"). Jinja2 has no such marks. The limit of stand-ins: a template that cuts pieces out of the *middle* of a
content and joins the rest could still make a token from what it joins. No chat template we know does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import ConfigurationError, InvalidRequest
from shared.protocol.guidance import Message

UNICODE_WHITESPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""The property White_Space, which is Rust's `\\s`. Python's `str.strip` takes U+001C to U+001F besides."""
PRIVATE_USE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900))
PROBE = "Probe: <tool_call> 1234 don't naïve 東京 👍🏽\n\n\tx = [0]  "


class ChatFormat:
    """A chat template together with the tokenizer it was written for.

    `tokenize` turns plain text into ids as it would behind a control token, and never yields the id of one for their
    spelling; `tokenize_start` does so for text at the very start of a prompt, where a tokenizer sees a difference.
    `variables` are the template's (`bos_token`, ...). Control tokens in `strip_before` and `strip_after` swallow the
    `whitespace` on that side of them (Hugging Face's `lstrip` and `rstrip`). Raises `ConfigurationError` for a template
    that isn't one. Safe to share between threads.
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
        self._pattern = _alternation(self._ids)
        self._disarm = _Disarm(self._ids, self._pattern, template + "".join(self._variables.values()))
        self.fingerprint = self._fingerprint(template)
        """Short hex: the same wherever a conversation becomes the same ids."""

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt as text, up to and including the generation prompt, as the reference renders it.

        Raises `InvalidRequest` when the template refuses the conversation.
        """
        return self._render(_turns(messages))

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt as ids, up to and including the generation prompt.

        The ids of the reference tokenizer, save where a content would make or finish a control token.
        Raises `InvalidRequest` when the template refuses the conversation.
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
        """Ids of text that goes on behind a prompt. Whatever it spells, none of them is a control token."""
        return self._plain(text, self._tokenize) if text else []

    def _plain(self, text: str, tokenize: Callable[[str], list[int]]) -> list[int]:
        """Ids of plain text. Halves it where merges make a control token of it after all (SentencePiece may)."""
        ids = tokenize(text)
        if len(text) < 2 or self._control_ids.isdisjoint(ids):
            return ids
        middle = len(text) // 2
        return self._plain(text[:middle], tokenize) + self._plain(text[middle:], self._tokenize)

    def _render(self, turns: list[dict[str, str]]) -> str:
        try:
            # What transformers passes. Without thinking, templates write an empty block of thoughts.
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


class _Disarm:
    """Puts stand-ins into contents, so that no control token is in one or forms at its borders."""

    def __init__(self, tokens: Collection[str], pattern: re.Pattern[str] | None, elsewhere: str) -> None:
        self._pattern = pattern
        self._tokens = tuple(tokens)
        self._longest = max(map(len, tokens), default=0)
        self._beginnings = tuple({token[:cut] for token in tokens for cut in range(1, len(token))})
        self._endings = tuple({token[cut:] for token in tokens for cut in range(1, len(token))})
        self._elsewhere = frozenset(elsewhere).union(*tokens)

    def __call__(self, turns: list[dict[str, str]]) -> tuple[list[dict[str, str]], dict[int, str]]:
        """The turns with stand-ins, and for each stand-in (as a code point) the character it stands for."""
        marks = [sorted(self._marks(turn["content"])) for turn in turns]
        if not any(marks):
            return turns, {}
        unused = self._unused(turns)
        stand_ins: dict[str, str] = {}
        disarmed = []
        for turn, places in zip(turns, marks, strict=True):
            content = list(turn["content"])
            for place in places:
                original = content[place]
                if original not in stand_ins:
                    stand_ins[original] = next(unused)
                content[place] = stand_ins[original]
            disarmed.append({**turn, "content": "".join(content)})
        return disarmed, {ord(stand_in): original for original, stand_in in stand_ins.items()}

    def _marks(self, content: str) -> set[int]:
        """Where the content needs stand-ins."""
        marks: set[int] = set()
        if self._pattern is None:
            return marks
        found = self._pattern.search(content)
        while found:
            marks.add(found.start())
            found = self._pattern.search(content, found.start() + 1)  # tokens may overlap
        # A template may strip the content, so its borders are also those of what is left then.
        left, right = len(content) - len(content.lstrip()), len(content.rstrip())
        for start, end in {(0, len(content)), (left, right)}:
            if start >= end:
                continue
            if content.startswith(self._endings, start, end) or (
                end - start < self._longest and any(content[start:end] in token for token in self._tokens)
            ):
                marks.add(start)
            if content.endswith(self._beginnings, start, end):
                marks.update(end - len(part) for part in self._beginnings if content.endswith(part, start, end))
        return marks

    def _unused(self, turns: list[dict[str, str]]) -> Iterator[str]:
        used = self._elsewhere.union(*(turn["content"] for turn in turns))
        for candidate in map(chr, chain(*PRIVATE_USE)):
            if candidate not in used:
                yield candidate
        raise InvalidRequest("the conversation uses all of Unicode's private characters", param="messages")


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _alternation(tokens: Collection[str]) -> re.Pattern[str] | None:
    """Finds the leftmost token, the longest where several begin at one place."""
    if not tokens:
        return None
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) + ")")


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; here it is transparent."""

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
    """The environment of `transformers.utils.chat_template_utils`, for which chat templates are written."""
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
