"""Converts log-probabilities of either model to OpenAI's form."""

from __future__ import annotations

from edge_student.student import TokenOutput
from shared.protocol.guidance import Guidance
from shared.protocol.openai_responses import TokenLogprob, TopLogprob


def logprobs_of_guidance(event: Guidance) -> list[TokenLogprob]:
    if event.logprobs is None or not event.count:
        return []
    return [TokenLogprob(token=event.text, bytes=list(event.text.encode()), logprob=sum(event.logprobs))]


def logprobs_of_token(token: TokenOutput) -> list[TokenLogprob]:
    if token.logprob is None:
        return []
    return [
        TokenLogprob(
            token=token.token.decode(errors="replace"),
            bytes=list(token.token),
            logprob=token.logprob,
            token_id=token.token_id,
            top_logprobs=[
                TopLogprob(
                    token=a.token.decode(errors="replace"), bytes=list(a.token), logprob=a.logprob, token_id=a.token_id
                )
                for a in token.alternatives
            ],
        )
    ]
