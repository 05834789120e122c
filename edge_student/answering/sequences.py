"""The student's sequences of one answer, one per choice, all on the same prompt and guidance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from edge_student.answering.choice import Choice, Part, PromptScores, PromptUsage
from edge_student.answering.context import AnswerContext
from edge_student.answering.logprobs import logprobs_of_token
from edge_student.answering.merge import merge
from edge_student.student import Score, ScoresOf, StudentSequence, TokenOutput
from shared.protocol.gkt import Source


class ChoiceSequences:
    """Opens a sequence per choice, feeds all of them the guidance, and lets the student write the rest."""

    def __init__(self, context: AnswerContext, *, deferred: bool = False, scores_of: ScoresOf | None = None) -> None:
        """`deferred` sequences start their prefill with the guidance. The first sequence scores `scores_of`."""
        self._context = context
        self._deferred = deferred
        self._scores_of = scores_of
        self._sequences: list[StudentSequence] = []
        self._guidance = ""
        self._prompt_scored = asyncio.Event()

    @property
    def opened(self) -> bool:
        return bool(self._sequences)

    @property
    def scores(self) -> list[Score]:
        """Scores so far. Prompt and guidance are the same for all choices, so the first sequence scores for all."""
        return [score for sequence in self._sequences[:1] for score in sequence.scores]

    def open(self) -> None:
        """Open the sequences; they start to prefill."""
        request = self._context.request
        for choice in self._context.choices:
            sequence = self._context.student.open(
                request.prompt,
                deferred=self._deferred,
                scores_of=self._scores_of if choice.index == 0 else None,
                top=request.sampling.top_logprobs or 0,
                cache_salt=request.cache_salt,
            )
            self._sequences.append(sequence)
            if self._guidance:
                sequence.extend(self._guidance)
        self._context.recorder.student.prompt_tokens = len(request.prompt)

    def extend(self, text: str) -> None:
        """Add guidance. Sequences that are opened later get it too."""
        self._guidance += text
        if text:
            for sequence in self._sequences:
                sequence.extend(text)

    def prefill_ahead(self, text: str) -> None:
        """Prefill text that will probably follow the guidance."""
        for sequence in self._sequences:
            sequence.prefill_ahead(text)

    async def write(
        self, max_tokens: int | None = None, *, prefetched: AsyncGenerator[TokenOutput, None] | None = None
    ) -> AsyncGenerator[Part, None]:
        """Let the student finish all choices that have not ended, then record what it computed.

        `max_tokens` limits each choice and defaults to the request's limit. `prefetched` yields the tokens of the only
        choice if the student has started to decode it elsewhere.
        """
        unfinished = [choice for choice in self._context.choices if not choice.ended]
        if unfinished:
            if not self.opened:
                self.open()
            async with aclosing(
                merge([self._write(choice, self._tokens(choice, max_tokens, prefetched)) for choice in unfinished])
            ) as parts:
                async for part in parts:
                    yield part
        if self._sequences:
            # The first choice has computed what the others share with it.
            self._context.recorder.student_done(self._sequences[0].cached_tokens)

    def close(self) -> None:
        for sequence in self._sequences:
            sequence.close()

    def _tokens(
        self, choice: Choice, max_tokens: int | None, prefetched: AsyncGenerator[TokenOutput, None] | None
    ) -> AsyncGenerator[TokenOutput, None]:
        sequence = self._sequences[choice.index]
        if prefetched:
            sequence.close()
            return prefetched
        return self._context.generate(sequence, self._context.sampling_of(choice, max_tokens=max_tokens))

    async def _write(self, choice: Choice, tokens: AsyncGenerator[TokenOutput, None]) -> AsyncGenerator[Part, None]:
        """The student's part of one choice."""
        request = self._context.request
        scores_due = request.prompt_scores_from is not None
        usage_due = request.prompt_usage_first and choice.index == 0
        async with aclosing(tokens):
            async for token in tokens:
                if scores_due:
                    scores_due = False
                    if choice.index == 0:
                        self._prompt_scored.set()
                    await self._prompt_scored.wait()
                    yield PromptScores(choice.index, self._sequences[0].scores)
                if usage_due:
                    usage_due = False
                    cached = self._sequences[choice.index].cached_tokens
                    yield PromptUsage(choice.index, len(request.prompt), cached)
                count = 1 if token.token else 0
                self._context.recorder.student_wrote(count)
                logprobs = logprobs_of_token(token)
                ending = logprobs.pop() if logprobs and token.end == "stop" else None
                ids = () if token.token_id is None else (token.token_id,)
                for part in choice.take(token.text, Source.STUDENT, tokens=count, logprobs=logprobs, ids=ids):
                    yield part
                if choice.ended:
                    return
                if token.end:
                    for part in choice.end(token.end, ending):
                        yield part
