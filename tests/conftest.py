"""Fixtures of several packages: services as real processes with real, small models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.collector import Collector, collecting
from tests.processes import Process

CLOUD_KEY = "a-key-for-tests"
CLOUD_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class CloudProcess:
    """A cloud with SmolLM2-135M on vLLM, ready, and the answers that it gave while it was loading."""

    url: str
    key: str
    process: Process
    traces: Collector
    """Traces that the service and its engine exported."""
    health_while_loading: httpx.Response
    ready_while_loading: httpx.Response
    guidance_while_loading: httpx.Response

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="session")
def cloud_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    """The one cloud of a test run. SIGTERM ends it, and it must leave no process behind."""
    with collecting() as traces:
        folder = tmp_path_factory.mktemp("cloud")
        store = f"sqlite:///{folder / 'store.db'}"
        environment = {"GKT_CLOUD_MODEL": CLOUD_MODEL, "GKT_CLOUD_KEYS": CLOUD_KEY, "GKT_CLOUD_STORE_URL": store}
        # The same on every CPU. In bfloat16, which those with AVX-512 take, two tokens are often exactly as probable.
        environment |= {"GKT_CLOUD_DTYPE": "float32"}
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        process = Process("cloud_teacher", environment, folder)
        try:
            url = process.url()
            headers = {"authorization": f"Bearer {CLOUD_KEY}"}
            question = {"messages": [{"role": "user", "content": "Hello"}], "max_guidance_tokens": 1}
            health, ready = httpx.get(f"{url}/health"), httpx.get(f"{url}/ready")
            guidance = httpx.post(f"{url}/v1/guidance", json=question, headers=headers)
            process.wait_until_ready()
            yield CloudProcess(url, CLOUD_KEY, process, traces, health, ready, guidance)
            status = process.end()
            assert (status, process.orphans()) == (0, {})
        finally:
            process.kill()
