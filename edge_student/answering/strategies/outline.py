"""Mode `outline`: the teacher writes a terse outline that no client sees; the student writes the answer from it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace

from edge_student.answering.choice import Part
from edge_student.answering.context import AnswerContext
from edge_student.answering.sequences import ChoiceSequences
from edge_student.answering.word_boundary_buffer import WordBoundaryBuffer
from edge_student.cloud.client import CloudFailed
from shared.prompting.templates import Template
from shared.prompting.tokenize import tokenize_off_loop
from shared.protocol.gkt import FallbackReason, Mode
from shared.protocol.guidance import Done, FinishReason, Guidance, Message, Start

logger = logging.getLogger("gkt.answering")

MODES = (Mode.OUTLINE,)


async def answer(context: AnswerContext) -> AsyncGenerator[Part, None]:
    """Yield the parts of the answer, `Finished` last. If no outline arrives, the student answers without one."""
    template, messages = context.options.expand_template, context.request.messages
    if template and messages is not None:
        await _add_outline(context, template, messages)
    with closing(ChoiceSequences(context)) as sequences:
        sequences.open()
        async with aclosing(sequences.write()) as parts:
            async for part in parts:
                yield part
        yield context.finished(answer_tokens=sum(choice.tokens for choice in context.choices))


async def _add_outline(context: AnswerContext, template: Template, messages: Sequence[Message]) -> None:
    """Replace the student's prompt by one that contains the teacher's outline."""
    # Meanwhile the student prefills what precedes the outline: the prefix cache keeps it.
    ahead = context.student.open(context.request.prompt, cache_salt=context.request.cache_salt)
    try:
        outline = await _outline(context)
    finally:
        ahead.close()
    if not outline:
        return
    expanded = template.apply(messages, answer=outline)
    prompt = await tokenize_off_loop(lambda: context.student.encode(expanded), expanded)
    if len(prompt) >= context.student.context_tokens:
        context.recorder.fallback = FallbackReason.TOO_LONG
    else:
        context.request = replace(context.request, prompt=prompt)


async def _outline(context: AnswerContext) -> str:
    """Return as much of the outline as arrives, in whole words. Empty if the cloud fails at once."""
    # The outline is plain text, whatever structure the answer must have.
    request = context.request.guidance(template="outline", json_schema=None, logprobs=False, stop_at_word_boundary=True)
    recorder, buffer = context.recorder, WordBoundaryBuffer(request.max_guidance_tokens)
    text, complete = "", False
    try:
        async with aclosing(context.call_teacher(request)) as events:
            async for event in events:
                match event:
                    case Start():
                        recorder.teacher_began(event)
                    case Guidance():
                        recorder.teacher_wrote(event)
                        text += buffer.push(event.text, event.count)
                    case Done():
                        recorder.teacher_done(event)
                        complete = event.finish_reason is FinishReason.STOP
    except CloudFailed as failure:
        recorder.fallback = failure.reason
        logger.warning("%s: no more of the outline: %s", context.request.request_id, failure)
    finally:
        recorder.teacher_left()
    return (text + buffer.finish(complete=complete)).strip()
