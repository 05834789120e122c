"""A llama.cpp vocabulary: text to tokens and back, and the chat format of its model.

Control tokens are those that llama.cpp marks as such (`llama_vocab_is_control`). User-defined tokens (Qwen's `<tool_call>`)
are ordinary vocabulary: `llama_tokenize` finds them in plain text too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cached_property

import llama_cpp
import numpy as np
import numpy.typing as npt

from shared.prompting.chat_format import ChatFormat

ASCII_WHITESPACE = " \t\n\v\f\r"
"""Characters that llama.cpp strips beside tokens with that attribute (`isspace`)."""
ANCHORS = ("\x02", "\n", "0")
"""Characters that do not merge with the text behind them, in most vocabularies."""
NO_TOKEN = -1


class Vocab:
    """The vocabulary behind a `llama_vocab` pointer. The model it belongs to must outlive it.

    Safe to share between threads: the vocabulary never changes, and caches are only filled.
    """

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self.n_tokens: int = llama_cpp.llama_vocab_n_tokens(pointer)
        self._pieces: dict[int, bytes] = {}

    @property
    def native(self) -> int:
        """The `llama_vocab` pointer."""
        return self._pointer

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of a text, without BOS or EOS.

        `parse_special` turns names of control tokens into control tokens. It must be False for text of users and models.
        SentencePiece vocabularies put a space in front (`add_space_prefix`), as at the start of a prompt and behind a control
        token.
        """
        data = text.encode()
        size = len(data) + 2  # no token is empty, and some vocabularies put a space in front
        while True:
            ids = (llama_cpp.llama_token * size)()
            count = llama_cpp.llama_tokenize(self._pointer, data, len(data), ids, size, False, parse_special)
            if count >= 0:
                return list(ids[:count])
            size = -count

    def tokenize_continuation(self, text: str) -> list[int]:
        """Return the ids of plain text that follows other text, such as guidance: no space is put in front."""
        if not text or not self._adds_space:
            return self.tokenize(text)
        for anchor in ANCHORS:
            head, ids = self.tokenize(anchor), self.tokenize(anchor + text)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return self.tokenize(text)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token, which may be a part of a character.

        Control tokens have none, or with `special` their name. Raises ValueError if the id is out of range.
        """
        piece = self._pieces.get(token)
        if piece is None:
            if not 0 <= token < self.n_tokens:  # llama.cpp would end the process
                raise ValueError(f"token id {token} is out of range; the vocabulary has {self.n_tokens} tokens")
            piece = self._pieces[token] = self._read_piece(token, special=False)
        return piece if piece or not special else self._read_piece(token, special=True)

    def detokenize(self, tokens: Iterable[int], *, special: bool = False) -> bytes:
        """Return the bytes of tokens that follow other text."""
        return b"".join(self.piece(token, special=special) for token in tokens)

    def is_end(self, token: int) -> bool:
        """Return whether the model ends its answer with this token (end of generation)."""
        return bool(llama_cpp.llama_vocab_is_eog(self._pointer, token))

    @cached_property
    def end_token(self) -> int:
        """A token that ends an answer."""
        return next(token for token in range(self.n_tokens) if self.is_end(token))

    @cached_property
    def textless(self) -> npt.NDArray[np.bool_]:
        """Mask of tokens without text, shape (vocabulary,): control tokens and unused ones, except those that end an answer."""
        tokens = range(self.n_tokens)
        return np.array([not self._read_piece(token, special=False) and not self.is_end(token) for token in tokens])

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """Control tokens by their text."""
        is_control, vocab = llama_cpp.llama_vocab_is_control, self._pointer
        tokens = (token for token in range(self.n_tokens) if is_control(vocab, token))
        return {text: token for token in tokens if (text := self._text(token))}

    @cached_property
    def variables(self) -> dict[str, str]:
        """Texts of the tokens that a chat template may use, under transformers' names."""
        ids = {
            "bos_token": llama_cpp.llama_vocab_bos(self._pointer),
            "eos_token": llama_cpp.llama_vocab_eos(self._pointer),
            "pad_token": llama_cpp.llama_vocab_pad(self._pointer),
        }
        return {name: self._text(token) for name, token in ids.items() if token != NO_TOKEN}

    def chat_format(self, template: str) -> ChatFormat:
        """Return the chat format of a template with this vocabulary. The template writes BOS itself, as in transformers."""
        return ChatFormat(
            template,
            control_tokens=self.control_tokens,
            tokenize=self.tokenize,
            variables=self.variables,
            strip_before=self._with_attribute(llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP),
            strip_after=self._with_attribute(llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP),
            whitespace=ASCII_WHITESPACE,
        )

    @cached_property
    def _adds_space(self) -> bool:
        return self.detokenize(self.tokenize("a")) != b"a"

    def _with_attribute(self, attribute: int) -> list[str]:
        return [
            text
            for text, token in self.control_tokens.items()
            if llama_cpp.llama_vocab_get_attr(self._pointer, token) & attribute
        ]

    def _text(self, token: int) -> str:
        text: bytes = llama_cpp.llama_vocab_get_text(self._pointer, token)
        return text.decode(errors="replace")

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self._pointer, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count
