"""The teacher's draft of an answer, for the student's eyes only."""

from __future__ import annotations

import logging
from contextlib import aclosing

from edge_student.answering.handover import Seam
from edge_student.answering.report import Account
from edge_student.cloud.client import Cloud, CloudFailed
from shared.protocol.guidance import Done, FinishReason, Guidance, GuidanceRequest, Start

logger = logging.getLogger("gkt.answering")


async def draft_of(request: GuidanceRequest, headers: dict[str, str], cloud: Cloud, account: Account) -> str:
    """As much of a draft as there is, in whole words; nothing where the cloud fails at once. The account says why it is short."""
    # Whatever the answer has to look like, its draft is plain text.
    request = request.model_copy(update={"json_schema": None, "logprobs": False, "stop_at_word_boundary": True})
    seam = Seam(request.max_guidance_tokens)
    text = ""
    complete = False
    try:
        async with aclosing(cloud.guide(request, headers, account.traffic)) as events:
            async for event in events:
                match event:
                    case Start():
                        account.teacher_began(event)
                    case Guidance():
                        account.teacher_said(event)
                        text += seam.push(event.text, event.count)
                    case Done():
                        account.teacher_done(event)
                        complete = event.finish_reason is FinishReason.STOP
    except CloudFailed as failure:
        account.fallback = failure.reason
        logger.warning("%s has no more of the draft: %s", request.template, failure)
    finally:
        account.teacher_left()
    return (text + seam.finish(complete=complete)).strip()
