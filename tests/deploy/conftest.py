"""Run tests of `stack` with processes, and in containers too if a Docker engine is available. The summary names both."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.deploy import containers as docker
from tests.deploy.stack import Stack, processes

why_not = functools.cache(docker.why_not)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stack" in metafunc.fixturenames:
        kinds = ["processes"] if why_not() else ["processes", "containers"]
        metafunc.parametrize("stack", kinds, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need containers if there is no Docker engine."""
    only = [item for item in items if "containers" in getattr(item, "fixturenames", ())]
    if only and why_not():
        config.hook.pytest_deselected(items=only)
        items[:] = [item for item in items if item not in only]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reason = why_not()
    line = f"with processes only: {reason}" if reason else "with processes and in containers"
    terminalreporter.write_line(f"the stack of docker-compose.yml was tested {line}")


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if request.param == "containers":
        yield request.getfixturevalue("containers")
        return
    with processes(request.getfixturevalue("cloud_process"), tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="module")
def containers() -> Iterator[docker.Containers]:
    with docker.containers() as running:
        yield running
