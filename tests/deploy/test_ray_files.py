"""Ray Serve and KubeRay accept the files in deploy/ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trustme
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.ray_serve.app import build
from cloud_teacher.ray_serve.replicas import Replicas, check_fields
from shared.errors import ConfigurationError
from tests.processes import ROOT

FOLDER = ROOT / "deploy/ray"
RAYSERVICE_SCHEMA = Path(__file__).with_name("rayservice.schema.json")


def serve_file() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "serve.yaml").read_text()))


def rayservice() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "rayservice.yaml").read_text()))


def config_in_rayservice() -> dict[str, Any]:
    return dict(yaml.safe_load(rayservice()["spec"]["serveConfigV2"]))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_CLOUD_KEYS", "a-key")


@pytest.mark.parametrize("config", [serve_file, config_in_rayservice])
def test_serve_takes_the_config_and_its_application_can_be_built(config: Callable[[], dict[str, Any]]) -> None:
    (application,) = ServeDeploySchema.model_validate(config()).applications
    assert application.import_path == "cloud_teacher.ray_serve.app:build"
    deployment: Any = build(application.args)._bound_deployment
    assert [changed.name for changed in application.deployments] == [deployment.name]
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 24)
    assert deployment.max_ongoing_requests > 32 + 64
    assert deployment._deployment_config.graceful_shutdown_timeout_s > CloudSettings().shutdown_grace_s
    assert deployment._replica_config.max_replicas_per_node == 1
    assert deployment.ray_actor_options["num_gpus"] == 1


def test_kuberay_takes_the_rayservice() -> None:
    schema = json.loads(RAYSERVICE_SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(rayservice(), schema)
    mistaken = rayservice()
    mistaken["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplica"] = 4
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(mistaken, schema)


def test_what_hangs_together_in_the_rayservice() -> None:
    cluster = rayservice()["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    config = config_in_rayservice()
    args = config["applications"][0]["args"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == tuple(Replicas.parse(args["replicas"]))
    pod = workers["template"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"serve": config["http_options"]["port"], "gkt-metrics": args["settings"]["metrics_port"]}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["gkt-metrics"])
    assert pod["spec"]["terminationGracePeriodSeconds"] > CloudSettings().shutdown_grace_s + 10


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({"replicas": "4:1"}, "MIN:MAX"),
        ({"settings": {"keys": "secret"}}, "GKT_CLOUD_KEYS in the environment of each machine"),
        ({"settings": {"port": 80}}, "http_options"),
        ({"settings": {"port_file": "port"}}, "http_options"),
        ({"settings": {"replay_file": "words"}}, "replay_file"),
    ],
)
def test_what_replicas_cannot_do_is_refused(args: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        build(args)


def test_what_is_no_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="replica\n"):
        build({"replica": 1})


def test_replicas_beyond_this_machine_have_keys_and_a_database_that_all_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_CLOUD_STORE_URL", "sqlite:////tmp/store.db")
    with pytest.raises(ConfigurationError, match="postgresql"):
        build({})
    monkeypatch.delenv("GKT_CLOUD_STORE_URL")
    monkeypatch.delenv("GKT_CLOUD_KEYS")
    with pytest.raises(ConfigurationError, match="GKT_CLOUD_KEYS"):
        build({})


def test_a_proxy_that_asks_no_client_for_a_certificate_is_not_taken_for_one_that_does(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("tls_cert_file", "tls_key_file", "tls_client_ca_file")}
    authority = trustme.CA()
    signed = authority.issue_cert("127.0.0.1")
    signed.cert_chain_pems[0].write_to_path(str(files["tls_cert_file"]))
    signed.private_key_pem.write_to_path(str(files["tls_key_file"]))
    authority.cert_pem.write_to_path(str(files["tls_client_ca_file"]))
    settings = CloudSettings.model_validate(files)
    with pytest.raises(ConfigurationError, match="tls_client_ca_file"):
        check_fields(settings, Replicas(1, 1), machines=False)
    check_fields(settings.model_copy(update={"tls_client_ca_file": None}), Replicas(1, 1), machines=False)


def test_replicas_on_one_machine_share_a_file_but_no_port() -> None:
    check_fields(CloudSettings(store_url="sqlite:////tmp/store.db"), Replicas(1, 4), machines=False)
    check_fields(CloudSettings(metrics_port=9464), Replicas(1, 1), machines=False)
    with pytest.raises(ConfigurationError, match="metrics_port"):
        check_fields(CloudSettings(metrics_port=9464), Replicas(1, 4), machines=False)
