"""Decides which tokens a grammar allows next, with llama.cpp's grammar sampler.

A native grammar that accepts a token it does not allow throws through ctypes and ends the process. `accept` therefore checks the
token first.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from edge_student.llama.json_schema import to_gbnf
from edge_student.llama.vocab import Vocab
from edge_student.tools.parser import CLOSE, OPEN

Candidates = npt.NDArray[Any]
"""Array of `CANDIDATE`: llama.cpp's `llama_token_data`."""
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class BadGrammar(ValueError):
    """llama.cpp cannot parse the grammar."""


class Grammar:
    """A grammar and its position in the text."""

    def __init__(self, vocab: Vocab, gbnf: str) -> None:
        """Parse the grammar. Raises BadGrammar."""
        self._vocab = vocab
        self._native: Any = llama_cpp.llama_sampler_init_grammar(vocab.native, gbnf.encode(), b"root")
        if not self._native:
            raise BadGrammar("the grammar cannot be parsed; it may be left-recursive")
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._native)
        self._textless, self._end = vocab.textless, vocab.end_token  # slow the first time: not on the event loop
        self._one = np.zeros(1, CANDIDATE)
        self._one_native = native_candidates(self._one)

    @property
    def complete(self) -> bool:
        """True if the text may end here."""
        return self._allows(self._end)

    def allows(self, token: int) -> bool:
        """Return whether a token may come next. A token that ends the answer may if the grammar is complete."""
        # llama.cpp would match control tokens by their names, which are not part of the text.
        return not self._textless[token] and self._allows(token)

    def accept(self, token: int) -> bool:
        """Advance by a token. Returns False, and does not advance, if the grammar does not allow it."""
        if self._vocab.is_end(token) or not self.allows(token):
            return False
        llama_cpp.llama_sampler_accept(self._native, token)
        return True

    def allowed(self, candidates: Candidates) -> Candidates:
        """Return the candidates that may come next."""
        candidates = candidates[~self._textless[candidates["id"]]]
        native = native_candidates(candidates)
        llama_cpp.llama_sampler_apply(self._native, ctypes.byref(native))
        finite: Candidates = candidates[np.isfinite(candidates["logit"])]
        return finite

    def _allows(self, token: int) -> bool:
        self._one[0] = (token, 0.0, 0.0)
        llama_cpp.llama_sampler_apply(self._native, ctypes.byref(self._one_native))
        return bool(np.isfinite(self._one["logit"][0]))


class GrammarGate:
    """Passes text on while a grammar allows it."""

    def __init__(self, vocab: Vocab, gbnf: str) -> None:
        self._vocab = vocab
        self._grammar = Grammar(vocab, gbnf)
        self._closed = False

    @property
    def complete(self) -> bool:
        return not self._closed and self._grammar.complete

    def push(self, text: str) -> str:
        for at, character in enumerate(text):
            # Character by character: a token of the text may extend beyond the part that is allowed.
            tokens = self._vocab.tokenize_continuation(character)
            self._closed = self._closed or not all(self._grammar.accept(token) for token in tokens)
            if self._closed:
                return text[:at]
        return text


def native_candidates(candidates: Candidates) -> Any:
    """Return llama.cpp's view of an array. The array must outlive the view."""
    pointer = ctypes.cast(candidates.ctypes.data, llama_cpp.llama_token_data_p)
    return llama_cpp.llama_token_data_array(data=pointer, size=len(candidates), selected=-1, sorted=False)


def text_or_calls(call_schema: Any, *, parallel: bool) -> str:
    """Return a grammar in GBNF of any text, or of calls under the schema: several if `parallel`. Raises UnsupportedSchema."""
    more = r' ("\n" marked)*' if parallel else ""

    def root_of(call: str) -> str:
        return "\n".join(
            [
                "calls | text0",
                f"calls ::= marked{more}",
                f'marked ::= "{OPEN}\\n" {call} "\\n{CLOSE}"',
                *(f"text{at} ::= {body}" for at, body in enumerate(_text_rules())),
            ]
        )

    return to_gbnf(call_schema, root_of)


def _text_rules() -> list[str]:
    """Return a rule for each prefix of the markup that opens a call: the end, or any text that does not complete the markup."""
    rules = []
    for at, character in enumerate(OPEN):
        continues = f' | "{character}" text{at + 1}' if at + 1 < len(OPEN) else ""
        rules.append(f"| [^{character}] .*{continues}")
    return rules
