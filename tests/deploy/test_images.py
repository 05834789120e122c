"""The images' contents: their files, and the two scripts that are copied into them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from edge_student.app import create_app
from edge_student.settings import EdgeSettings
from tests.edge_student.fakes import ScriptedStudent
from tests.processes import ROOT
from tests.running import serving

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_an_image_is_of_this_version_and_its_last_stage_is_for_nobody_in_particular(file: Path) -> None:
    text = file.read_text()
    assert f"ARG VERSION={PROJECT['version']}\n" in text
    last = text[text.rindex("\nFROM ") :]
    assert "\nUSER 10001:10001\n" in last
    assert "HEALTHCHECK" in last
    assert '\nENTRYPOINT ["gkt"]\n' in last, "no shell between a signal and the program"
    for builder_only in ("PIP_", "g++", "pip install", "COPY ."):
        assert builder_only not in last
    assert "--mount" not in text, "the classic builder knows no mounts"


@pytest.mark.parametrize(
    ("extra", "all_of_them"),
    [("edge", ["edge"]), ("cloud-cpu", ["cloud-cpu", "fleet"]), ("cloud,ray", ["cloud", "ray", "fleet"])],
)
@pytest.mark.system
def test_images_install_what_the_project_asks_for(extra: str, all_of_them: list[str], tmp_path: Path) -> None:
    for file in (ROOT / "deploy/requirements.py", ROOT / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    command = [sys.executable, str(tmp_path / "requirements.py"), extra]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    asked = [requirement for name in all_of_them for requirement in PROJECT["optional-dependencies"][name]]
    assert told == [*PROJECT["dependencies"], *[one for one in asked if not one.startswith("gkt[")]]


def test_what_the_package_needs_reaches_the_build() -> None:
    let_in = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*built["packages"], "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= let_in


def check(url: str) -> int:
    """Run the script as a health check does: isolated, without site packages."""
    command = [sys.executable, "-IS", str(ROOT / "deploy/ready.py"), url]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.system
async def test_a_service_is_healthy_once_it_is_ready() -> None:
    async with serving(create_app(EdgeSettings(), student=ScriptedStudent("Hello"))) as url:
        assert await off_the_loop(f"{url}/ready") == 0
        assert await off_the_loop(f"{url}/nowhere") == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert check(f"{url}/ready") == 1


@pytest.mark.system
async def test_a_service_that_loads_is_not_healthy() -> None:
    app = FastAPI()

    @app.get("/ready", status_code=503)
    async def ready() -> dict[str, str]:
        return {"status": "loading"}

    async with serving(app, ready=False) as url:
        assert await off_the_loop(f"{url}/ready") == 1


async def off_the_loop(url: str) -> int:
    return await asyncio.to_thread(check, url)
