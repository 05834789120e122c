from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cloud_teacher.config.settings import CloudSettings
from edge_student.settings import EdgeSettings
from gkt.__main__ import COMMANDS, app
from tests.gkt.run_command import gkt, gkt_process


def help_of(*command: str) -> str:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return " ".join(result.stdout.split())


def test_help_lists_every_command_and_says_how_to_begin() -> None:
    text = help_of()
    for name, entry in COMMANDS.items():
        assert f"{name} " in text
        assert entry.summary in text
    assert "gkt up in one terminal" in text
    assert "GKT_HOME" in text


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("up", ["--teacher", "--student", "--cloud-port", "--edge-port", "--wan", "until Ctrl-C", "Example: gkt up"]),
        (
            "ask",
            ["--url", "--mode", "on_demand,", "--max-guidance-tokens", "--max-tokens", "--system", "--json"],
        ),
        (
            "cloud",
            [
                "--model",
                "--host",
                "--port",
                "--ray",
                "--replicas",
                "GKT_CLOUD_KEYS",
                "docs/reference/configuration.md",
                "Example: GKT_CLOUD",
            ],
        ),
        (
            "edge",
            [
                "--model",
                "--cloud-url",
                "--policy",
                "--port",
                "GKT_EDGE_CLOUD_KEY",
                "docs/reference/configuration.md",
                "gkt-student",
            ],
        ),
        ("keys", ["create", "list", "revoke", "rotate", "GKT_CLOUD_STORE_URL", "within two seconds"]),
        ("usage", ["--key", "--since", "--until", "--json", "GKT_CLOUD_STORE_URL"]),
        ("bench", ["--json"]),
        ("eval", ["run", "compare", "report", "guidance is worth"]),
        (
            "tune",
            ["--keep", "--tuning-range", "--reporting-range", "--policy", "--write-best-effort", "Example: gkt tune"],
        ),
        ("wan", ["serve", "set", "cut", "stall", "reset", "refuse", "corrupt", "resume", "profile", "show"]),
        ("models", ["list", "pull", "verify", "GKT_HOME"]),
    ],
)
def test_help_of_a_command_teaches_it(command: str, lines: list[str]) -> None:
    text = help_of(command)
    assert [line for line in lines if line not in text] == []


def test_the_defaults_that_up_shows_are_those_of_the_services() -> None:
    text = help_of("up")
    for model in (CloudSettings.model_fields["model"].default, EdgeSettings.model_fields["model"].default):
        assert f"[default: ({model})]" in text
    for port in (CloudSettings.model_fields["port"].default, EdgeSettings.model_fields["port"].default):
        assert f"[default: {port}]" in text


@pytest.mark.system
def test_the_list_of_commands_needs_none_of_them() -> None:
    program = "import sys; from gkt.__main__ import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(shown.stdout.split())
    assert "gkt.__main__" in modules
    assert modules.isdisjoint({"pydantic", "httpx", "fastapi", "uvicorn", "vllm", "torch", "llama_cpp"})


def test_every_command_is_where_the_list_says() -> None:
    group = get_command(app)
    for name in COMMANDS:
        assert help_of(name).startswith(f"Usage: {group.name or 'gkt'} {name}")


async def test_wrong_usage_has_status_2() -> None:
    assert (await gkt("ask")).status == 2
    assert (await gkt("up", "--cloud-port", "70000")).status == 2
    outcome = await gkt("upp")
    assert outcome.status == 2
    assert "No such command 'upp'" in outcome.err


async def test_a_wrong_setting_is_one_line_that_names_it() -> None:
    for command, variable in (("cloud", "GKT_CLOUD_KV_CACHE_GIB"), ("edge", "GKT_EDGE_THREADS")):
        outcome = await gkt(command, environment={variable: "-1"})
        assert outcome.status == 1
        assert outcome.out == ""
        assert outcome.err.startswith(f"gkt: {variable}: ")
        assert outcome.err.count("\n") == 1


async def test_settings_that_contradict_each_other_are_one_line() -> None:
    outcome = await gkt("cloud", "--host", "0.0.0.0")
    assert outcome.status == 1
    assert "set GKT_CLOUD_KEYS" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(["--replicas", "2"], "--replicas: requires --ray"), (["--ray", "--replicas", "2:1"], "use MIN or MIN:MAX")],
)
async def test_replicas_that_cannot_be_are_one_line(options: list[str], complaint: str) -> None:
    outcome = await gkt("cloud", *options)
    assert outcome.status == 1
    assert complaint in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "engine", "remedy"),
    [
        ("cloud", "vllm", "pip install 'gkt[cloud]'"),
        ("cloud --ray", "ray", "pip install 'gkt[ray]'"),
        ("edge", "llama_cpp", "pip install 'gkt[edge]'"),
        ("up", "llama_cpp", "pip install 'gkt[edge]'"),
    ],
)
@pytest.mark.system
def test_an_engine_that_is_not_installed_is_named_with_the_command_that_installs_it(
    command: str, engine: str, remedy: str
) -> None:
    program = f"import sys; sys.modules[{engine!r}] = None; from gkt.__main__ import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", program, *command.split()], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert remedy in said.stderr
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--cloud-port", "--edge-port"])
@pytest.mark.system
async def test_a_port_in_use_is_found_before_anything_is_loaded(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = "--edge-port" if option == "--cloud-port" else "--cloud-port"
        outcome = await gkt_process("up", option, port, other, "0", environment={"GKT_HOME": str(tmp_path)})
    assert outcome.status == 1
    assert outcome.err == (
        f"gkt: cannot listen on 127.0.0.1:{port}: Address already in use. Choose another port with {option}\n"
    )
    assert list(tmp_path.iterdir()) == [], "no model was fetched and no log begun"
