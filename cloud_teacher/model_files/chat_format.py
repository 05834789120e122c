"""The chat format of a Hugging Face tokenizer, such as vLLM's.

Its ids are those of `apply_chat_template`, with control tokens kept to the template. Control tokens are the added tokens
marked `special`. The others (Qwen's `<tool_call>`) are ordinary vocabulary: they are found in contents too, as the reference
finds them.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from shared.errors import ConfigurationError
from shared.prompting.chat_format import ChatFormat


class HfTokenizer(Protocol):
    """What is used of `transformers.PreTrainedTokenizerFast` (since transformers 5, `TokenizersBackend`)."""

    @property
    def backend_tokenizer(self) -> Any: ...

    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...

    def get_chat_template(self) -> str: ...


def chat_format(tokenizer: HfTokenizer, template: str | None = None) -> ChatFormat:
    """The tokenizer's own chat template, or the one given, with a copy of the tokenizer.

    Raises `ConfigurationError` for a tokenizer without a `tokenizers` backend, and where there is no template.
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
    """A private copy of a `tokenizers.Tokenizer` that leaves special tokens in a text as text.

    SentencePiece vocabularies may put a space before a text at the start of a prompt and none behind a control token
    (`Metaspace(prepend_scheme="first")`). There the copy gets a token more, an unguessable one, to stand where the
    control token would: its id is dropped again.
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
        self._backend.add_tokens([_unnormalised(self._anchor)])
        if [self.tokenize(probe) for probe in probes] == start:
            self._anchor = ""

    def tokenize_start(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text behind a control token."""
        return self.tokenize_start(self._anchor + text)[1:] if self._anchor else self.tokenize_start(text)


def _unnormalised(text: str) -> Any:
    from tokenizers import AddedToken

    return AddedToken(text, special=False, normalized=False)
