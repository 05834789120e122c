from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import pytest
import trustme
from prometheus_client import Gauge

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.processes import Process
from tests.running import serving


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def names(page: str) -> list[str]:
    return [line.split("{")[0].split()[0] for line in page.splitlines() if not line.startswith("#")]


async def test_metrics_have_a_port_of_their_own_and_nothing_else_is_there() -> None:
    port = free_port()
    settings = CloudSettings(metrics_port=port, max_prompt_tokens=100, max_model_len=200)
    teacher = ScriptedTeacher("Hello")
    Gauge("fake:requests", "with a colon, as the engine has them", registry=teacher.registry).set(1)
    async with serving(create_app(settings, teacher=teacher)) as url, httpx.AsyncClient() as client:
        asks = {"accept": "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5"}
        metrics = await client.get(f"http://127.0.0.1:{port}/metrics", headers=asks)
        assert "fake_generation_tokens_total" in metrics.text, "the engine's too, though it came later"
        here = names((await client.get(f"{url}/metrics")).text)
        assert names(metrics.text) == here
        for path in ("/", "/health", "/v1/guidance", "/docs", "/openapi.json"):
            assert (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 404
        assert (await client.post(f"http://127.0.0.1:{port}/v1/guidance", json={})).status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


async def test_metrics_are_plain_http_beside_a_cloud_with_tls(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(cert))
    certificate.private_key_pem.write_to_path(str(key))
    port = free_port()
    settings = CloudSettings(metrics_port=port, tls_cert_file=cert, tls_key_file=key)
    async with serving(create_app(settings, teacher=ScriptedTeacher("Hello"))), httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200


@pytest.mark.system
def test_a_signal_ends_both_servers(tmp_path: Path) -> None:
    port = free_port()
    cloud = Process("tests.cloud_teacher.scripted_cloud", {"GKT_CLOUD_METRICS_PORT": str(port)}, tmp_path)
    try:
        cloud.wait_until_ready()
        with httpx.Client() as client:  # its connection stays open
            assert client.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
            assert cloud.end(signal.SIGINT) == 130
    finally:
        cloud.kill()
