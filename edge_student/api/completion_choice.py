"""One choice of a text completion: accumulates echoed prompt, text and log-probabilities into chunks or into the whole choice."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_student.answering.choice import ChoiceEnded, PromptScores, PromptUsage, TextPart
from shared.protocol.openai_responses import AnswerEnd, TextChoice, TextLogprobs, TokenLogprob, TopLogprob


class Token(NamedTuple):
    """A token's bytes and its id. The end of an answer may have no id."""

    bytes: bytes
    id: int | None = None


@dataclass
class _Pending:
    """Content of a choice since its last chunk, except log-probabilities."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] | None = None
    end: AnswerEnd | None = None
    stop: str | None = None


class CompletionChoiceBuilder:
    """Builds one choice from the parts of its answer.

    A streamed answer gives each part to `chunks`, any other one gives all parts to `add` and then calls `assemble`.
    """

    def __init__(
        self,
        index: int,
        *,
        echo: str,
        prompt: Sequence[Token],
        logprobs: bool,
        token_ids: bool = False,
        names_are_ids: bool = False,
    ) -> None:
        """`echo` is the prompt, with its tokens in `prompt`, if the choice repeats it; otherwise both are empty.

        `token_ids` adds the ids of the answer's tokens. `names_are_ids` names tokens by their ids in log-probabilities.
        """
        self._index = index
        self._echo = echo
        self._prompt = prompt
        self._columns = LogprobColumns(names_are_ids=names_are_ids) if logprobs else None
        self._show_ids = token_ids
        self._pending = _Pending()

    def chunks(self, part: PromptUsage | PromptScores | TextPart | ChoiceEnded) -> Iterator[TextChoice]:
        """Add a part, and yield the chunks that it completes.

        The prompt is echoed with the first part only: an answer that fails before it can still get an error status.
        """
        for _ in self._accumulate(part):
            yield self._chunk()

    def add(self, part: PromptUsage | PromptScores | TextPart | ChoiceEnded) -> None:
        """Add a part to the whole choice."""
        for _ in self._accumulate(part):
            pass

    def assemble(self) -> TextChoice:
        """Return everything that was added."""
        choice = self._chunk()
        if self._columns and choice.logprobs is None:
            choice.logprobs = TextLogprobs()
        return choice

    def _accumulate(self, part: PromptUsage | PromptScores | TextPart | ChoiceEnded) -> Iterator[None]:
        """Add a part, and yield where a chunk is complete."""
        if isinstance(part, PromptUsage):
            return
        if self._echo:
            self._pending.text.append(self._echo)
            if self._columns and isinstance(part, PromptScores):
                self._columns.add_prompt(self._echo, self._prompt, part)
            self._echo = ""
            yield
        match part:
            case TextPart(text=text, logprobs=logprobs, token_ids=ids):
                self._pending.text.append(text)
                if self._columns:
                    self._columns.add_answer(logprobs)
                if self._show_ids:
                    self._pending.token_ids = self._pending.token_ids or []
                    self._pending.token_ids += ids
                yield
            case ChoiceEnded(reason=reason, stop=stop, logprob=logprob):
                if self._columns and logprob:
                    # OpenAI counts the end of the answer as a token of it, and clients that echo a prompt rely on that.
                    self._columns.add_answer([logprob])
                self._pending.end, self._pending.stop = reason, stop
                yield

    def _chunk(self) -> TextChoice:
        """Return what was added since the last chunk."""
        pending, self._pending = self._pending, _Pending()
        return TextChoice(
            index=self._index,
            text="".join(pending.text),
            logprobs=self._columns.take() if self._columns else None,
            finish_reason=pending.end,
            stop_reason=pending.stop,
            token_ids=pending.token_ids,
        )


class LogprobColumns:
    r"""Log-probabilities in OpenAI's columnar form. Counts the offset in the text at which each token begins.

    A token that begins inside a character has the offset of that character, and its name is its bytes, as OpenAI writes them:
    `bytes:\xf0\x9f`. With `names_are_ids` the name is the id, as vLLM writes it: `token_id:7`.
    """

    def __init__(self, *, names_are_ids: bool = False) -> None:
        self._names_are_ids = names_are_ids
        self._offset = 0
        self._columns: TextLogprobs | None = None
        self._start_text()

    def add_prompt(self, text: str, tokens: Sequence[Token], scored: PromptScores) -> None:
        """Add the prompt's tokens. Nothing precedes the first one, so it has no log-probability."""
        # SentencePiece vocabularies put a space in front of the text. It is part of the first token, but not of the text.
        self._offset = len(text) - len(b"".join(token.bytes for token in tokens).decode(errors="replace"))
        self._add(tokens[0], None, ())
        for score in scored.scores:
            alternatives = ((Token(a.token, a.token_id), a.logprob) for a in score.alternatives)
            self._add(Token(score.token, score.token_id), score.logprob, alternatives)
        self._offset = len(text)
        self._start_text()

    def add_answer(self, entries: Iterable[TokenLogprob]) -> None:
        """Add tokens of the answer. Without any the columns are empty, but no longer None."""
        self._columns = self._columns or TextLogprobs()
        for entry in entries:
            alternatives = ((_token(top), top.logprob) for top in entry.top_logprobs)
            self._add(_token(entry), entry.logprob, alternatives)

    def take(self) -> TextLogprobs | None:
        """Return what was added since the last call, or None if nothing was."""
        columns, self._columns = self._columns, None
        return columns

    def _add(self, token: Token, logprob: float | None, alternatives: Iterable[tuple[Token, float]]) -> None:
        columns = self._columns = self._columns or TextLogprobs()
        columns.tokens.append(self._name(token))
        columns.token_logprobs.append(logprob)
        columns.top_logprobs.append(None if logprob is None else self._top(token, logprob, alternatives))
        columns.text_offset.append(max(0, self._offset))
        self._offset += len(self._decoder.decode(token.bytes))

    def _top(self, token: Token, logprob: float, alternatives: Iterable[tuple[Token, float]]) -> dict[str, float]:
        """Return the alternatives, most probable first, then the token. Of two with one name the more probable is kept."""
        top: dict[str, float] = {}
        for other, probability in alternatives:
            top.setdefault(self._name(other), probability)
        top.setdefault(self._name(token), logprob)
        return top

    def _name(self, token: Token) -> str:
        if self._names_are_ids and token.id is not None:
            return f"token_id:{token.id}"
        try:
            return token.bytes.decode()
        except UnicodeDecodeError:
            return f"bytes:{repr(token.bytes)[2:-1]}"

    def _start_text(self) -> None:
        """Decode the next token's bytes as the start of a text, not as the rest of a character."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")


def _token(entry: TopLogprob) -> Token:
    return Token(bytes(entry.bytes or ()), entry.token_id)
