"""One choice of `/v1/completions` as it grows: its prompt where that is echoed, its text, its log-probabilities."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edge_student.answering.choice import ChoiceEnded, PromptScores, PromptUsage, TextPart
from shared.protocol.openai_responses import TextChoice, TextLogprobs, TokenLogprob, TopLogprob


class GrowingText:
    """Makes a chunk of each part of an answer. All chunks joined are the whole choice."""

    def __init__(
        self,
        index: int,
        *,
        echo: str,
        prompt: Sequence[Token],
        logprobs: bool,
        ids: bool = False,
        named_by_ids: bool = False,
    ) -> None:
        """`echo` is the prompt where it is to be said again, and `prompt` its tokens; `ids`: say the answer's.

        `named_by_ids`: in log-probabilities tokens go by their ids.
        """
        self._index = index
        self._echo = echo
        self._prompt = prompt
        self._columns = Columns(by_ids=named_by_ids) if logprobs else None
        self._ids = ids

    def chunks(self, part: PromptUsage | PromptScores | TextPart | ChoiceEnded) -> list[TextChoice]:
        """What a part adds. The first one brings the echo, so that what fails before it can still be a status."""
        chunks: list[TextChoice] = []
        if isinstance(part, PromptUsage):
            return chunks
        if self._echo:
            echo, self._echo = self._echo, ""
            columns = None
            if self._columns and isinstance(part, PromptScores):
                columns = self._columns.of_prompt(echo, self._prompt, part)
            chunks.append(TextChoice(index=self._index, text=echo, logprobs=columns, finish_reason=None))
        match part:
            case TextPart():
                columns = self._columns.of_answer(part.logprobs) if self._columns else None
                ids = list(part.token_ids) if self._ids else None
                choice = TextChoice(
                    index=self._index, text=part.text, logprobs=columns, finish_reason=None, token_ids=ids
                )
                chunks.append(choice)
            case ChoiceEnded():
                # As OpenAI does: whoever reads the columns of an echo counts on a token of the answer, be it only its end.
                columns = self._columns.of_answer([part.logprob]) if self._columns and part.logprob else None
                choice = TextChoice(
                    index=self._index, text="", logprobs=columns, finish_reason=part.reason, stop_reason=part.stop
                )
                chunks.append(choice)
        return chunks


def joined(index: int, chunks: Iterable[TextChoice], *, logprobs: bool) -> TextChoice:
    """A whole choice from its chunks."""
    whole = TextChoice(index=index, text="", logprobs=TextLogprobs() if logprobs else None, finish_reason=None)
    texts = []
    for chunk in chunks:
        texts.append(chunk.text)
        whole.finish_reason, whole.stop_reason = chunk.finish_reason, chunk.stop_reason
        if chunk.token_ids is not None:
            whole.token_ids = [*(whole.token_ids or []), *chunk.token_ids]
        if whole.logprobs and chunk.logprobs:
            whole.logprobs.tokens += chunk.logprobs.tokens
            whole.logprobs.token_logprobs += chunk.logprobs.token_logprobs
            whole.logprobs.top_logprobs += chunk.logprobs.top_logprobs
            whole.logprobs.text_offset += chunk.logprobs.text_offset
    whole.text = "".join(texts)
    return whole


class Token(NamedTuple):
    """What a token writes, and its number in the vocabulary, where there is one: an answer's end may have none."""

    bytes: bytes
    id: int | None = None


class Columns:
    r"""Log-probabilities in OpenAI's columnar form, a chunk at a time. Keeps count of where in the text each token begins.

    A token that begins inside a character has the offset of that character, and its name is its bytes, as OpenAI writes them:
    `bytes:\xf0\x9f`; or, `by_ids`, its id, as vLLM writes it: `token_id:7`.
    """

    def __init__(self, *, by_ids: bool = False) -> None:
        self._by_ids = by_ids
        self._at = 0
        self._new_decoder()

    def of_prompt(self, text: str, tokens: Sequence[Token], scored: PromptScores) -> TextLogprobs:
        """The prompt's tokens. Nothing stands before the first, so it has no log-probability."""
        # Some vocabularies see a space before the text (SentencePiece): it is a part of the first token, and not of the text.
        self._at = len(text) - len(b"".join(token.bytes for token in tokens).decode(errors="replace"))
        columns = TextLogprobs()
        self._add(columns, tokens[0], None, ())
        for score in scored.scores:
            alternatives = ((Token(a.token, a.token_id), a.logprob) for a in score.alternatives)
            self._add(columns, Token(score.token, score.token_id), score.logprob, alternatives)
        self._at = len(text)
        self._new_decoder()
        return columns

    def of_answer(self, entries: Iterable[TokenLogprob]) -> TextLogprobs:
        columns = TextLogprobs()
        for entry in entries:
            alternatives = ((_token(top), top.logprob) for top in entry.top_logprobs)
            self._add(columns, _token(entry), entry.logprob, alternatives)
        return columns

    def _add(
        self, columns: TextLogprobs, token: Token, logprob: float | None, alternatives: Iterable[tuple[Token, float]]
    ) -> None:
        columns.tokens.append(self._name(token))
        columns.token_logprobs.append(logprob)
        columns.top_logprobs.append(None if logprob is None else self._top(token, logprob, alternatives))
        columns.text_offset.append(max(0, self._at))
        self._at += len(self._decoder.decode(token.bytes))

    def _top(self, token: Token, logprob: float, alternatives: Iterable[tuple[Token, float]]) -> dict[str, float]:
        """The alternatives, most probable first, and the token itself. Of two with the same name the more probable one stays."""
        top: dict[str, float] = {}
        for other, probability in alternatives:
            top.setdefault(self._name(other), probability)
        top.setdefault(self._name(token), logprob)
        return top

    def _name(self, token: Token) -> str:
        if self._by_ids and token.id is not None:
            return f"token_id:{token.id}"
        try:
            return token.bytes.decode()
        except UnicodeDecodeError:
            return f"bytes:{repr(token.bytes)[2:-1]}"

    def _new_decoder(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")


def _token(entry: TopLogprob) -> Token:
    return Token(bytes(entry.bytes or ()), entry.token_id)
