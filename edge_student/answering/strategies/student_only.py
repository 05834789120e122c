"""Mode `off`: the student writes the answer alone. So it does if a budget of 0 or raw text rules the teacher out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, closing

from edge_student.answering.choice import Part
from edge_student.answering.context import AnswerContext
from edge_student.answering.sequences import ChoiceSequences
from shared.protocol.gkt import Mode

MODES = (Mode.OFF,)


async def answer(context: AnswerContext) -> AsyncGenerator[Part, None]:
    """Yield the parts of the answer, `Finished` last."""
    with closing(ChoiceSequences(context, scores_of=context.request.prompt_scores_from)) as sequences:
        sequences.open()
        async with aclosing(sequences.write()) as parts:
            async for part in parts:
                yield part
        yield context.finished()
