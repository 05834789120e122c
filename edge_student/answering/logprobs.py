"""Log-probabilities of either side as OpenAI writes them."""

from __future__ import annotations

from edge_student.student import Word
from shared.protocol.guidance import Guidance
from shared.protocol.openai import TokenLogprob, TopLogprob


def logprobs_of_guidance(event: Guidance) -> list[TokenLogprob]:
    if event.logprobs is None or not event.count:
        return []
    return [TokenLogprob(token=event.text, bytes=list(event.text.encode()), logprob=sum(event.logprobs))]


def logprobs_of_word(word: Word) -> list[TokenLogprob]:
    if word.logprob is None:
        return []
    return [
        TokenLogprob(
            token=word.token.decode(errors="replace"),
            bytes=list(word.token),
            logprob=word.logprob,
            token_id=word.token_id,
            top_logprobs=[
                TopLogprob(
                    token=a.token.decode(errors="replace"), bytes=list(a.token), logprob=a.logprob, token_id=a.token_id
                )
                for a in word.alternatives
            ],
        )
    ]
