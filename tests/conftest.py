"""The three kinds of tests, and the one cloud that tests of several packages share.

A test is a `unit` test unless it has another mark. It fails if it starts a process or looks for a model. `engine` tests load
real, small models; `system` tests start processes. Tests with vLLM or Ray are one xdist group: one process runs them in turn.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import certifi
import httpx
import hypothesis
import pytest

from shared.colocation import COLOCATED_CLOUD_ENV
from tests.cloud_teacher.stream_reader import end_by_ctrl_c
from tests.collector import Collector, collecting
from tests.processes import Process
from tests.small_teacher import cut

CLOUD_KEY = "a-key-for-tests"
CLOUD_MODEL = "smollm2-135m-instruct"

PUBLIC: Any = {"cafile": os.environ.get("SSL_CERT_FILE") or certifi.where()}

# As the edge does for itself: else llama.cpp's threads spin while they wait, and starve what shares the machine's cores.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_create_context = ssl.create_default_context


def _context(*arguments: Any, **options: Any) -> ssl.SSLContext:
    """Read the 140 certificates that every client of httpx trusts once: a context takes 20 ms, and most tests make several."""
    return _public_authorities() if not arguments and options == PUBLIC else _create_context(*arguments, **options)


@functools.cache
def _public_authorities() -> ssl.SSLContext:
    return _create_context(**PUBLIC)


ssl.create_default_context = _context

hypothesis.settings.register_profile("tests", deadline=None)  # no assertion depends on the speed of the machine
hypothesis.settings.load_profile("tests")

KINDS = {"unit", "engine", "system"}
PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}
NO_MODELS = "/dev/null/a-unit-test-has-no-models"
_unit_test = ""
"""Name of the unit test that runs, if one does."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cloud_process" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")
            item.add_marker(pytest.mark.xdist_group("vllm"))
        kinds = KINDS & {mark.name for mark in item.iter_markers()}
        if len(kinds) > 1:
            raise pytest.UsageError(f"{item.nodeid} is marked {' and '.join(sorted(kinds))}: a test is of one kind")
        if not kinds:
            item.add_marker("unit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep a unit test, its fixtures included, from processes and models; give a student in this process one thread.

    Two lanes of tests share the cores. A second thread would mostly wait for the first, and the first for the second.
    """
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("unit"):
            patch.setitem(globals(), "_unit_test", item.nodeid)
            patch.setenv("GKT_HOME", NO_MODELS)
        elif item.get_closest_marker("engine"):
            patch.setenv("GKT_EDGE_THREADS", "1")
        return (yield)


def _refuse_processes(event: str, arguments: tuple[object, ...]) -> None:
    if _unit_test and event in PROCESS_EVENTS:
        raise AssertionError(f"{_unit_test} starts a process, which a unit test must not: {event}{arguments}")


sys.addaudithook(_refuse_processes)


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
    """The one cloud of a test run. Ctrl-C ends it under two requests, and it must leave no process behind."""
    with collecting() as traces:
        folder = tmp_path_factory.mktemp("cloud")
        store = f"sqlite:///{folder / 'store.db'}"
        environment = {"GKT_CLOUD_MODEL": CLOUD_MODEL, "GKT_CLOUD_KEYS": CLOUD_KEY, "GKT_CLOUD_STORE_URL": store}
        # The same on every CPU. In bfloat16, which those with AVX-512 take, two tokens are often exactly as probable.
        environment |= {"GKT_CLOUD_DTYPE": "float32", "GKT_CLOUD_SHUTDOWN_GRACE_S": "4"}
        environment |= {**COLOCATED_CLOUD_ENV, "OMP_NUM_THREADS": "1"}
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
            asyncio.run(end_by_ctrl_c(process, headers))
        finally:
            process.kill()


@pytest.fixture(scope="session")
def small_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a model that vLLM loads fast."""
    folder = tmp_path_factory.mktemp("teacher") / "two-layers"
    cut(CLOUD_MODEL, folder)
    return str(folder)
