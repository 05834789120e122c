"""The compose file's promises, checked in the file, and in the output of `docker-compose config` if it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
OURS = ("models", "cloud", "wan", "edge-a", "edge-b")
KEYS = ("GKT_EDGE_A_KEY", "GKT_EDGE_B_KEY", "GKT_GRAFANA_PASSWORD")
WANTED = re.compile(r"\$\{(\w+):\?[^}]+\}")


def read() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(read()["services"])


def networks(service: dict[str, Any]) -> set[str]:
    return set(service["networks"])


def test_each_edge_shares_a_network_with_wan_alone(services: dict[str, dict[str, Any]]) -> None:
    for edge in ("edge-a", "edge-b"):
        (own,) = networks(services[edge])
        assert {name for name, service in services.items() if own in networks(service)} == {edge, "wan", "prometheus"}
        assert not networks(services[edge]) & networks(services["cloud"])
        assert services[edge]["environment"]["GKT_EDGE_CLOUD_URL"].startswith("http://wan:")
    assert not networks(services["edge-a"]) & networks(services["edge-b"])


def test_of_the_cloud_only_metrics_are_published_and_nothing_beyond_this_machine(
    services: dict[str, dict[str, Any]],
) -> None:
    metrics = services["cloud"]["environment"]["GKT_CLOUD_METRICS_PORT"]
    assert [port.rpartition(":")[2] for port in services["cloud"]["ports"]] == [metrics]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_edges_are_limited_like_devices(services: dict[str, dict[str, Any]]) -> None:
    for edge in ("edge-a", "edge-b"):
        for limit in ("cpus", "mem_limit"):
            assert re.fullmatch(r"\$\{GKT_EDGE_[AB]_\w+:-\d+m?\}", services[edge][limit])
        assert services[edge]["environment"]["GKT_EDGE_THREADS"], "a core count of the machine is none of a device"
    models = [services[edge]["environment"]["GKT_EDGE_MODEL"] for edge in ("edge-a", "edge-b")]
    assert models[0] != models[1]


def test_no_key_has_a_default(services: dict[str, dict[str, Any]]) -> None:
    wanted = set()
    for name, service in services.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"KEYS?$|PASSWORD$", variable) and variable != "GKT_EDGE_API_KEYS":
                assert WANTED.sub("", value).strip(",") == "", f"{variable} of {name} has a default"
                wanted |= set(WANTED.findall(value))
    assert wanted == set(KEYS)
    keys = services["cloud"]["environment"]["GKT_CLOUD_KEYS"]
    for edge in ("edge-a", "edge-b"):
        assert services[edge]["environment"]["GKT_EDGE_CLOUD_KEY"] in keys


def test_services_have_as_few_rights_as_they_can(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["restart"] == ("no" if name == "models" else "unless-stopped"), name
    for name in OURS:
        assert services[name]["read_only"] is True
        if name not in {"wan", "models"}:
            assert "models:/models:ro" in services[name]["volumes"], "only `models` writes there"


def test_each_waits_for_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    done, healthy = {"condition": "service_completed_successfully"}, {"condition": "service_healthy"}
    assert services["cloud"]["depends_on"] == {"models": done}
    assert services["wan"]["depends_on"] == {"cloud": healthy}
    for edge in ("edge-a", "edge-b"):
        assert services[edge]["depends_on"] == {"models": done, "wan": healthy}


def test_every_file_that_is_mounted_is_here(services: dict[str, dict[str, Any]]) -> None:
    mounted = [v.split(":")[0] for s in services.values() for v in s.get("volumes", []) if v.startswith("./")]
    assert len(mounted) == 3
    for path in mounted:
        assert (ROOT / path).exists(), path


def test_prometheus_scrapes_services_where_they_listen(services: dict[str, dict[str, Any]]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())["scrape_configs"]
    targets = {t for job in scraped for group in job["static_configs"] for t in group["targets"]}
    listening = {f"{name}:{port.rpartition(':')[2]}" for name in OURS for port in services[name].get("ports", [])}
    assert targets == listening
    for target in targets:
        assert networks(services["prometheus"]) & networks(services[target.partition(":")[0]])


def config(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return the file as compose resolves it, without `.env` and with only these of our variables in the environment."""
    compose = next((c for c in (["docker-compose"], ["docker", "compose"]) if works(c)), None)
    assert compose
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GKT_")}
    empty = tmp_path / "empty.env"
    empty.touch()
    return subprocess.run(
        [*compose, "--env-file", str(empty), "-f", str(FILE), "config"],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def works(compose: list[str]) -> bool:
    if not shutil.which(compose[0]):
        return False
    return subprocess.run([*compose, "version"], capture_output=True, check=False).returncode == 0


needs_compose = pytest.mark.skipif(
    not (works(["docker-compose"]) or works(["docker", "compose"])),
    reason="apt-get install docker-compose: the file itself is tested all the same",
)


@needs_compose
def test_compose_takes_the_file_once_there_are_keys(tmp_path: Path) -> None:
    made = config(tmp_path, **{name: f"random-{name}" for name in KEYS})
    assert made.returncode == 0, made.stderr
    services = yaml.safe_load(made.stdout)["services"]
    assert services["cloud"]["environment"]["GKT_CLOUD_KEYS"] == "random-GKT_EDGE_A_KEY,random-GKT_EDGE_B_KEY"
    assert float(services["edge-a"]["cpus"]) == 2


@needs_compose
@pytest.mark.parametrize("missing", KEYS)
def test_without_a_key_compose_says_who_makes_it(tmp_path: Path, missing: str) -> None:
    made = config(tmp_path, **{name: "random" for name in KEYS if name != missing})
    assert made.returncode != 0
    assert "make compose creates it" in made.stderr
