"""A cloud behind TLS, as a process, and edges that check it and prove themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from cloud_teacher.config.settings import CloudSettings
from edge_student.cloud.client import CloudFailed, HttpCloudClient, Traffic
from edge_student.settings import EdgeSettings
from shared.errors import ConfigurationError
from shared.protocol.guidance import Done, Event, GuidanceRequest, Message
from tests.processes import Process

REQUEST = GuidanceRequest(messages=[Message(role="user", content="?")], max_guidance_tokens=3)


class Files:
    """A certificate authority and the certificates that it signed, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def signed(self, name: str) -> tuple[Path, Path]:
        """Return the paths of a new certificate and its key."""
        made = self._authority.issue_cert(name)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=[False, True], ids=["tls", "mutual"])
def cloud(
    request: pytest.FixtureRequest, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, bool]]:
    """Run a cloud. Yields its URL, and whether it requires a client certificate."""
    cert, key = files.signed("127.0.0.1")
    environment = {"GKT_CLOUD_TLS_CERT_FILE": str(cert), "GKT_CLOUD_TLS_KEY_FILE": str(key)}
    if request.param:
        environment["GKT_CLOUD_TLS_CLIENT_CA_FILE"] = str(files.ca)
    process = Process("tests.cloud_teacher.scripted_cloud", environment, tmp_path_factory.mktemp("cloud"))
    try:
        yield process.url().replace("http://", "https://"), request.param
    finally:
        process.kill()


async def events(url: str, settings: EdgeSettings) -> list[Event]:
    cloud = HttpCloudClient(url, settings)
    try:
        return [event async for event in cloud.guide(REQUEST, {}, Traffic())]
    finally:
        await cloud.close()


@pytest.mark.system
async def test_an_edge_checks_the_cloud_and_proves_itself(cloud: tuple[str, bool], files: Files) -> None:
    url, mutual = cloud
    cert, key = files.signed("edge-1.example")
    trusting = EdgeSettings(cloud_ca_file=files.ca)
    proving = EdgeSettings(cloud_ca_file=files.ca, cloud_cert_file=cert, cloud_cert_key_file=key)
    async with httpx.AsyncClient(base_url=url, verify=proving.cloud_tls() or False) as client:
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.02)
    assert isinstance((await events(url, proving))[-1], Done)
    if mutual:
        with pytest.raises(CloudFailed):
            await events(url, trusting)
    else:
        assert isinstance((await events(url, trusting))[-1], Done)
    with pytest.raises(CloudFailed):
        await events(url, EdgeSettings())  # the system does not trust it
    with pytest.raises(CloudFailed):
        await events(url.replace("https://", "http://"), EdgeSettings())


@pytest.mark.system
async def test_a_certificate_of_another_authority_is_refused(
    cloud: tuple[str, bool], files: Files, tmp_path: Path
) -> None:
    url, mutual = cloud
    others = Files(tmp_path)
    cert, key = others.signed("edge-1.example")
    with pytest.raises(CloudFailed):
        await events(url, EdgeSettings(cloud_ca_file=others.ca))
    if mutual:
        with pytest.raises(CloudFailed):
            await events(url, EdgeSettings(cloud_ca_file=files.ca, cloud_cert_file=cert, cloud_cert_key_file=key))


def test_files_that_are_not_what_they_should_be_are_said_at_once(files: Files, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    cert, key = files.signed("a.example")
    _, other_key = files.signed("b.example")
    with pytest.raises(ConfigurationError, match="together"):
        CloudSettings(tls_cert_file=cert)
    with pytest.raises(ConfigurationError, match="together"):
        CloudSettings(tls_client_ca_file=files.ca)
    with pytest.raises(ConfigurationError, match="are not a certificate and its key"):
        CloudSettings(tls_cert_file=cert, tls_key_file=other_key)
    with pytest.raises(ConfigurationError, match="does not hold a certificate authority"):
        CloudSettings(tls_cert_file=cert, tls_key_file=key, tls_client_ca_file=nonsense)
    with pytest.raises(ConfigurationError, match="does not hold a certificate authority"):
        EdgeSettings(cloud_ca_file=nonsense)
    with pytest.raises(ConfigurationError, match="expected both"):
        EdgeSettings(cloud_cert_file=cert)
    context = EdgeSettings(cloud_ca_file=files.ca).cloud_tls()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
