"""One cloud, two edges and the link between them answer before, during and after a cut."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.protocol.openai_responses import ChatCompletion
from tests.deploy.stack import EDGES, Stack
from tests.processes import ROOT
from wan.control import Control

# The first test starts everything, and builds the images if it runs in containers.
pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(5400)]

LONG = "Explain in a few sentences why the sky is blue."
AS_PROMETHEUS = {"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")


def ask(stack: Stack, edge: str, **options: Any) -> ChatCompletion:
    """Check that an answer is complete and well-formed, and return it."""
    body = {
        "model": "gkt",
        "messages": [{"role": "user", "content": LONG}],
        "max_tokens": 48,
        "gkt": {"max_guidance_tokens": 12},
    }
    response = httpx.post(f"{stack.edges[edge]}/v1/chat/completions", json={**body, **options}, timeout=300)
    assert response.status_code == 200, response.text
    answer = ChatCompletion.model_validate_json(response.content)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    return answer


def writers(answer: ChatCompletion) -> list[str]:
    assert answer.gkt
    return [segment.source for segment in answer.gkt.segments[0]]


def fallback(answer: ChatCompletion) -> str | None:
    assert answer.gkt
    return answer.gkt.fallback


@pytest.fixture
def control(stack: Stack) -> Iterator[Control]:
    """Yield the control of a link. Afterwards the link works again, and both circuit breakers are closed."""
    with Control(stack.control) as client:
        yield client
        for edge in EDGES:
            client.do(edge, "resume")
            ask(stack, edge)


@pytest.mark.parametrize("edge", EDGES)
def test_each_edge_is_guided_over_its_own_link(stack: Stack, edge: str) -> None:
    with Control(stack.control) as control:
        before = {link.name: link.bytes_down for link in control.links()}
        answer = ask(stack, edge)
        assert (writers(answer)[0], fallback(answer)) == ("teacher", None)
        after = {link.name: link.bytes_down for link in control.links()}
    assert [name for name in EDGES if after[name] > before[name]] == [edge]


def test_where_one_link_is_cut_its_edge_answers_alone_and_the_other_is_guided(stack: Stack, control: Control) -> None:
    control.do("edge-a", "cut")
    alone = ask(stack, "edge-a")
    assert (writers(alone), fallback(alone)) == (["student"], "unreachable")
    assert fallback(ask(stack, "edge-b")) is None
    control.do("edge-a", "resume")
    assert fallback(ask(stack, "edge-a")) is None


@pytest.mark.parametrize("edge", EDGES)
def test_a_cut_in_the_middle_of_guidance_loses_no_answer(stack: Stack, control: Control, edge: str) -> None:
    control.do(edge, "cut", direction="down", after_bytes=2500)
    answer = ask(stack, edge, model="gkt-teacher", max_tokens=120, gkt={})
    assert (writers(answer), fallback(answer)) == (["teacher", "student"], "broken")


def test_every_metric_that_a_dashboard_names_is_there(stack: Stack, control: Control) -> None:
    control.do("edge-b", "cut")
    assert fallback(ask(stack, "edge-b")) == "unreachable"
    found = {job: samples(urls) for job, urls in stack.metrics.items()}
    files = list((ROOT / "deploy/monitoring/dashboards").glob("*.json"))
    expressions = [expression for file in files for expression in expressions_of(file)]
    assert len(expressions) > 20
    for expression in expressions:
        selectors = [(name, selector) for name, selector in SELECTOR.findall(expression) if name != "up"]
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        for name, selector in selectors:
            conditions = {key: value for key, _, value in re.findall(r'(\w+)(!?=)"([^"]*)"', selector)}
            there = found[conditions.pop("job")]
            assert name in there, expression
            # `site` is Prometheus' own, of its configuration.
            assert grouped - {"site"} <= set(there[name]), expression
            for label, value in conditions.items():
                assert label in there[name], expression
                assert "!=" in selector or value in there[name][label], expression


def expressions_of(file: Path) -> list[str]:
    panels = json.loads(file.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def samples(urls: Sequence[str]) -> dict[str, dict[str, set[str]]]:
    """Return the values of each label of each sample on these pages."""
    found: dict[str, dict[str, set[str]]] = {}
    for url in urls:
        for family in text_string_to_metric_families(httpx.get(url, headers=AS_PROMETHEUS).text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def test_an_edge_that_waited_for_its_breaker_is_guided_again(stack: Stack, control: Control) -> None:
    control.do("edge-a", "cut")
    reasons = [fallback(ask(stack, "edge-a")) for _ in range(4)]
    assert reasons == ["unreachable"] * 3 + ["breaker_open"]
    control.do("edge-a", "resume")
    while fallback(ask(stack, "edge-a")) is not None:  # until its breaker lets one try; pytest has a limit
        time.sleep(0.2)
