"""Builds the chat format of a Hugging Face tokenizer, such as vLLM's.

The ids are those of `apply_chat_template`, except that contents cannot contain control tokens. Control tokens are the added
tokens marked `special`. Other added tokens (Qwen's `<tool_call>`) are ordinary vocabulary and may occur in contents, as in the
reference.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from shared.errors import ConfigurationError
from shared.prompting.chat_format import ChatFormat


class HfTokenizer(Protocol):
    """The used part of `transformers.PreTrainedTokenizerFast` (since transformers 5, `TokenizersBackend`)."""

    @property
    def backend_tokenizer(self) -> Any: ...

    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...

    def get_chat_template(self) -> str: ...


def chat_format(tokenizer: HfTokenizer, template: str | None = None) -> ChatFormat:
    """Return the chat format of a tokenizer with its own chat template, or the given one.

    Raises ConfigurationError for a tokenizer without a `tokenizers` backend, or without a template.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ConfigurationError(
            f"{type(tokenizer).__name__} has no backend of the tokenizers library (tokenizer.json)"
        )
    if template is None:
        try:
            template = tokenizer.get_chat_template()
        except ValueError as error:
            raise ConfigurationError("the tokenizer has no chat template") from error
    plain = _PlainText(tokenizer.backend_tokenizer)
    special = {token.content: token_id for token_id, token in plain.added.items() if token.special}
    return ChatFormat(
        template,
        control_tokens=special,
        tokenize=plain.tokenize,
        tokenize_start=plain.tokenize_start,
        variables={name: text for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)},
        strip_before=[token.content for token in plain.added.values() if token.special and token.lstrip],
        strip_after=[token.content for token in plain.added.values() if token.special and token.rstrip],
    )


class _PlainText:
    """A private copy of a `tokenizers.Tokenizer` that encodes special tokens in a text as plain text.

    SentencePiece vocabularies may insert a space at the start of a prompt, but not behind a control token
    (`Metaspace(prepend_scheme="first")`). For these the copy gets an additional, unguessable token, which takes the place of the
    control token; its id is dropped again.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = copy.deepcopy(backend)
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self.added: dict[int, Any] = self._backend.get_added_tokens_decoder()
        probes = ("a", " a")
        start = [self.tokenize_start(probe) for probe in probes]
        self._anchor = f"\ufdd0{secrets.token_hex(16)}"
        self._backend.add_tokens([_unnormalized(self._anchor)])
        if [self.tokenize(probe) for probe in probes] == start:
            self._anchor = ""

    def tokenize_start(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text behind a control token."""
        return self.tokenize_start(self._anchor + text)[1:] if self._anchor else self.tokenize_start(text)


def _unnormalized(text: str) -> Any:
    from tokenizers import AddedToken

    return AddedToken(text, special=False, normalized=False)
