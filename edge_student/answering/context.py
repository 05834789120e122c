"""Context of one answer: the request, both models, and the record of tokens, times and cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from edge_student.answering.choice import Choice, Finished
from edge_student.answering.report import AnswerRecorder
from edge_student.answering.request import AnswerRequest
from edge_student.answering.tracing import traced_tokens
from edge_student.cloud.client import CloudClient
from edge_student.policy import Policy
from edge_student.student import Score, Student, StudentSampling, StudentSequence, TokenOutput
from shared.observability.telemetry import Span
from shared.prompting.templates import Template
from shared.protocol.guidance import Event, GuidanceRequest


@dataclass(frozen=True)
class AnswerOptions:
    """Settings of an edge that concern how its answers are made."""

    expand_template: Template | None = None
    """Puts the teacher's outline into the student's prompt. Without it mode `outline` does not call the cloud."""
    draft_ahead: bool = True
    """True if the student writes the next draft while the teacher reads the last one."""
    fallback_prefetch_after_s: float | None = None
    """Seconds without guidance after which the student starts to decode unseen. None never does."""
    prefill_after_teacher: bool = False
    """True if the student's prefill waits for the teacher's first token."""


@dataclass
class AnswerContext:
    """One answer under way."""

    request: AnswerRequest
    student: Student
    cloud: CloudClient
    options: AnswerOptions
    span: Span
    choices: list[Choice] = field(init=False)
    recorder: AnswerRecorder = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self.choices = [Choice(index, request.stops, show_stop=request.include_stop) for index in range(request.n)]
        self.recorder = AnswerRecorder(
            request.policy.mode, request.request_id, self.student.model, policy_file=request.policy.file
        )

    @property
    def policy(self) -> Policy:
        return self.request.policy

    def sampling_of(self, choice: Choice, *, max_tokens: int | None = None) -> StudentSampling:
        """Return the request's sampling with a seed of the choice's own. `max_tokens` replaces the limit."""
        sampling = self.request.sampling
        seed = None if sampling.seed is None else sampling.seed + choice.index
        limit = sampling.max_tokens if max_tokens is None else max_tokens
        return sampling.model_copy(update={"seed": seed, "max_tokens": limit})

    def generate(self, sequence: StudentSequence, sampling: StudentSampling) -> AsyncGenerator[TokenOutput, None]:
        """Let the student decode in a sequence, with a span of its own."""
        return traced_tokens(sequence, sampling, self.student.model, self.span)

    def call_teacher(self, request: GuidanceRequest) -> AsyncGenerator[Event, None]:
        """Call the cloud. Raises CloudFailed."""
        return self.cloud.guide(request, self.request.cloud_headers, self.recorder.traffic)

    def finished(self, *, scores: Sequence[Score] | None = None, answer_tokens: int | None = None) -> Finished:
        """Build the last part. `answer_tokens` counts the answer if it leaves out some of the tokens that were written."""
        usage = self.recorder.usage(len(self.request.prompt), answer_tokens)
        return Finished(self.recorder.report(self.choices, scores), usage)
