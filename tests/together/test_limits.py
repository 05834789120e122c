"""An edge behind a cloud that answers with Retry-After."""

from __future__ import annotations

import pytest

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from edge_student.cloud.client import CloudFailed, HttpCloudClient, Traffic
from edge_student.settings import EdgeSettings
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import GuidanceRequest, Message
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.running import serving

REQUEST = GuidanceRequest(messages=[Message(role="user", content="?")], max_guidance_tokens=5)


async def ask(cloud: HttpCloudClient) -> None:
    async for _ in cloud.guide(REQUEST, {}, Traffic()):
        pass


async def test_it_does_not_ask_again_before() -> None:
    teacher = ScriptedTeacher("a", "b")
    teacher.gate.clear()
    app = create_app(CloudSettings(max_running_per_key=1), teacher=teacher)
    async with serving(app) as url:
        cloud = HttpCloudClient(url, EdgeSettings())
        running = cloud.guide(REQUEST, {}, Traffic())
        await anext(running)
        with pytest.raises(CloudFailed) as refused:
            await ask(cloud)
        assert refused.value.reason is FallbackReason.RATE_LIMITED
        assert (refused.value.retry_after_s or 0) >= 1
        teacher.gate.set()
        async for _ in running:
            pass
        with pytest.raises(CloudFailed) as held:
            await ask(cloud)
        assert held.value.reason is FallbackReason.BREAKER_OPEN, "though what ran has ended well"
        await cloud.close()
    assert len(teacher.request_ids) == 1
