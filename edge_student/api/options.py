"""Options that both kinds of completion share: sampling, and the number of choices."""

from __future__ import annotations

from edge_student.service import EdgeService
from edge_student.student import StudentSampling
from shared.errors import InvalidRequest
from shared.protocol.openai_requests import CompletionOptions


def student_sampling(
    body: CompletionOptions, edge: EdgeService, prompt: list[int], *, max_tokens: int | None, top_logprobs: int | None
) -> StudentSampling:
    """Return the sampling options for the student. Without a limit, the answer may fill the context. Raises InvalidRequest."""
    student = edge.ready_student()
    bias = tuple((int(token), value) for token, value in (body.logit_bias or {}).items())
    student.check_tokens([token for token, _ in bias], param="logit_bias")
    return StudentSampling(
        **body.sampling_params(edge.settings.default_temperature).model_dump(),
        max_tokens=max(1, student.context_tokens - len(prompt)) if max_tokens is None else max_tokens,
        typical_p=1.0 if body.typical_p is None else body.typical_p,
        logit_bias=bias,
        top_logprobs=top_logprobs,
    )


def choice_count(body: CompletionOptions, edge: EdgeService) -> int:
    """Return the number of choices per prompt. Raises InvalidRequest if it exceeds the edge's limit."""
    n = body.n or 1
    limit = min(edge.settings.max_choices, edge.settings.max_sequences)
    if n > limit:
        raise InvalidRequest(f"n: {n} choices; at most {limit} are allowed", param="n")
    return n
