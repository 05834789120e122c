"""The topology as the tests see it (two edges, the control of the link, metrics), and its start as plain processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.child_process import ChildProcess
from tests.conftest import CloudProcess
from tests.processes import ROOT, Process
from wan.control import Control

MODEL = "smollm2-135m-instruct"
EDGES = ("edge-a", "edge-b")
PATIENT = {"GKT_EDGE_FIRST_TOKEN_DEADLINE_S": "120", "GKT_EDGE_NEXT_TOKEN_DEADLINE_S": "60"}
"""Deadlines long enough for a busy machine."""


@dataclass(frozen=True)
class Stack:
    edges: Mapping[str, str]
    """Base URLs by name, which is the name of the edge's link too."""
    control: str
    metrics: Mapping[str, Sequence[str]]
    """URLs of metrics by Prometheus' name of the job."""


@contextmanager
def processes(cloud: CloudProcess, folder: Path) -> Iterator[Stack]:
    """Run the cloud of the test run behind a link, and two edges. All end in good order and leave no process behind."""
    with ExitStack() as stack:
        control = stack.enter_context(_wan(cloud, folder))
        with Control(control) as client:
            links = {link.name: link.listens for link in client.links()}
        edges = {}
        for name in EDGES:
            edges[name] = Process("edge_student", {**_edge(links[name], cloud.key), **PATIENT}, _folder(folder, name))
            stack.callback(edges[name].kill)
        for edge in edges.values():
            edge.wait_until_ready()
        urls = {name: edge.url() for name, edge in edges.items()}
        metrics = {"cloud": [cloud.url], "wan": [control], "edge": list(urls.values())}
        yield Stack(urls, control, {job: [f"{url}/metrics" for url in of] for job, of in metrics.items()})
        assert {name: (edge.end(), edge.orphans()) for name, edge in edges.items()} == dict.fromkeys(EDGES, (0, {}))


def _edge(link: str, key: str) -> dict[str, str]:
    return {"GKT_EDGE_MODEL": MODEL, "GKT_EDGE_CLOUD_URL": f"http://{link}", "GKT_EDGE_CLOUD_KEY": key}


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


@contextmanager
def _wan(cloud: CloudProcess, folder: Path) -> Iterator[str]:
    """Run `gkt wan serve` in front of the cloud. Yields the URL of its control API."""
    port_file = folder / "wan-port"
    options = [option for name in EDGES for option in ("--link", f"{name}=0")]
    options += ["--to", cloud.url.removeprefix("http://"), "--control", "0", "--port-file", str(port_file)]
    command = [sys.executable, "-m", "gkt", "wan", "serve", *options]
    process = ChildProcess("wan", command, env=os.environ, log=folder / "wan.log", cwd=ROOT)
    try:
        yield f"http://127.0.0.1:{process.port(port_file, 30)}"
        assert process.stop() == 0
    finally:
        process.kill()
