"""Properties that only containers have: networks, limits, rights, images."""

from __future__ import annotations

import json
import time

import pytest

from tests.deploy.containers import SERVICES, Containers, run
from tests.deploy.stack import EDGES

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(5400)]

REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
except OSError as error:
    print("no:", error)
else:
    print("yes")
"""


def reach(stack: Containers, edge: str, host: str, port: int) -> str:
    return stack.python(edge, REACH.replace("sys.argv[1]", repr(host)).replace("sys.argv[2]", str(port))).strip()


@pytest.mark.parametrize("edge", EDGES)
def test_an_edge_reaches_the_cloud_through_the_link_alone(containers: Containers, edge: str) -> None:
    port = {"edge-a": 9001, "edge-b": 9002}[edge]
    assert reach(containers, edge, "wan", port) == "yes"
    assert reach(containers, edge, "cloud", 8080).startswith("no:"), "it does not even know its name"
    cloud = containers.address("cloud")
    for port in (8080, 9464):
        assert reach(containers, edge, cloud, port).startswith("no:")
    other = next(name for name in EDGES if name != edge)
    assert reach(containers, edge, containers.address(other), 8081).startswith("no:")
    assert reach(containers, "wan", cloud, 8080) == "yes", "it is there all the while"


def test_only_what_the_file_says_is_published_and_on_this_machine_alone(containers: Containers) -> None:
    published = json.loads(containers.inspect("cloud", ".NetworkSettings.Ports"))
    assert {port for port, where in published.items() if where} == {"9464/tcp"}
    for service in SERVICES:
        for where in json.loads(containers.inspect(service, ".NetworkSettings.Ports")).values():
            assert {each["HostIp"] for each in where or []} <= {"127.0.0.1"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_rights(containers: Containers, service: str) -> None:
    program = (
        "import os; print(os.getuid(), [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')])"
    )
    assert containers.python(service, program).strip() == f"10001 ['{'0' * 16}']"
    assert "Read-only file system" in containers.python(service, "open('/opt/gkt/x', 'w')")
    if service != "wan":
        assert "Read-only file system" in containers.python(service, "open('/models/x', 'w')")


def test_edges_are_held_to_their_limits(containers: Containers) -> None:
    assert json.loads(containers.inspect("edge-b", ".HostConfig.NanoCpus")) == 1e9
    assert json.loads(containers.inspect("edge-b", ".HostConfig.Memory")) == 768 << 20
    assert json.loads(containers.inspect("edge-a", ".HostConfig.Memory")) == 1536 << 20


def test_the_edges_image_is_small_and_no_image_tells_where_its_packages_came_from(containers: Containers) -> None:
    image = json.loads(containers.inspect("edge-a", ".Image"))
    assert int(run("docker", "image", "inspect", "-f", "{{.Size}}", image)) < 600e6
    program = "import importlib.util as u; print([m for m in ('torch', 'vllm', 'transformers') if u.find_spec(m)])"
    assert containers.python("edge-a", program).strip() == "[]"
    for service in ("cloud", "edge-a"):
        history = run("docker", "history", "--no-trunc", json.loads(containers.inspect(service, ".Image")))
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "g++"):
            assert name not in history
        environment = containers.inspect(service, ".Config.Env")
        assert "PIP_FIND_LINKS" not in environment


def test_the_volume_was_filled_with_progress_in_the_log(containers: Containers) -> None:
    log = containers.compose("logs", "--no-color", "models")
    for line in (
        "fetching smollm2-135m-instruct",
        "verifying smollm2-135m-instruct",
        "converting smollm2-135m-instruct",
    ):
        assert line in log
    assert json.loads(containers.inspect("models", ".State.ExitCode")) == 0


def test_sigterm_ends_an_edge_in_good_order_and_it_comes_back(containers: Containers) -> None:
    container = containers.container("edge-b")
    began = time.monotonic()
    run("docker", "stop", "-t", "120", container)
    assert time.monotonic() - began < 100, "it was not killed"
    assert json.loads(containers.inspect("edge-b", ".State.ExitCode")) == 0
    run("docker", "start", container)
    containers.wait_until_healthy("edge-b")
