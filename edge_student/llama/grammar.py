"""What may come next under a grammar, token by token: llama.cpp's grammar sampler, never asked to take what it refuses.

A grammar that is given a token it does not allow throws through ctypes and ends the process. So `accept` asks first.
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
    """llama.cpp cannot read the grammar."""


class Grammar:
    """A grammar and how far it has come."""

    def __init__(self, vocab: Vocab, gbnf: str) -> None:
        """Raises BadGrammar."""
        self._vocab = vocab
        self._native: Any = llama_cpp.llama_sampler_init_grammar(vocab.native, gbnf.encode(), b"root")
        if not self._native:
            raise BadGrammar("the grammar cannot be read; it may be left-recursive")
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._native)
        self._mute, self._end = vocab.mute, vocab.an_end  # the first time takes a while: not on the event loop
        self._one = np.zeros(1, CANDIDATE)
        self._one_native = native_candidates(self._one)

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._asked(self._end)

    def allows(self, token: int) -> bool:
        """Whether a token may come next. One that ends the answer may where the grammar is complete."""
        # llama.cpp would let control tokens stand for their names, which are not in the text.
        return not self._mute[token] and self._asked(token)

    def accept(self, token: int) -> bool:
        """Go on by a token. Returns False, and stays, where the grammar does not allow it."""
        if self._vocab.is_end(token) or not self.allows(token):
            return False
        llama_cpp.llama_sampler_accept(self._native, token)
        return True

    def allowed(self, candidates: Candidates) -> Candidates:
        """Those of the candidates that may come next."""
        candidates = candidates[~self._mute[candidates["id"]]]
        native = native_candidates(candidates)
        llama_cpp.llama_sampler_apply(self._native, ctypes.byref(native))
        finite: Candidates = candidates[np.isfinite(candidates["logit"])]
        return finite

    def _asked(self, token: int) -> bool:
        self._one[0] = (token, 0.0, 0.0)
        llama_cpp.llama_sampler_apply(self._native, ctypes.byref(self._one_native))
        return bool(np.isfinite(self._one["logit"][0]))


class GrammarGate:
    """Lets text through as long as a grammar allows it."""

    def __init__(self, vocab: Vocab, gbnf: str) -> None:
        self._vocab = vocab
        self._grammar = Grammar(vocab, gbnf)
        self._closed = False

    @property
    def complete(self) -> bool:
        return not self._closed and self._grammar.complete

    def push(self, text: str) -> str:
        for at, character in enumerate(text):
            # By the character: a text's own tokens may hold more than what is allowed of it.
            tokens = self._vocab.tokenize_continuation(character)
            self._closed = self._closed or not all(self._grammar.accept(token) for token in tokens)
            if self._closed:
                return text[:at]
        return text


def native_candidates(candidates: Candidates) -> Any:
    """llama.cpp's view of an array, which must outlive it."""
    pointer = ctypes.cast(candidates.ctypes.data, llama_cpp.llama_token_data_p)
    return llama_cpp.llama_token_data_array(data=pointer, size=len(candidates), selected=-1, sorted=False)


def text_or_calls(call_schema: Any, *, parallel: bool) -> str:
    """In GBNF. Calls are JSON under the schema, one behind the other where they are `parallel`. Raises UnsupportedSchema."""
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
    """What may come behind so many characters of the markup that opens a call: the end, or anything that is not all of it."""
    rules = []
    for at, character in enumerate(OPEN):
        goes_on = f' | "{character}" text{at + 1}' if at + 1 < len(OPEN) else ""
        rules.append(f"| [^{character}] .*{goes_on}")
    return rules
