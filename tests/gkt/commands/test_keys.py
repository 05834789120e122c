"""`gkt keys` and `gkt usage`, run as an operator does."""

from __future__ import annotations

import json
import uuid
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cloud_teacher.accounting.ledger import LedgerRow
from cloud_teacher.store.database import connect
from cloud_teacher.store.keys import list_keys
from cloud_teacher.store.rows import write
from gkt.__main__ import app
from shared.errors import ConfigurationError
from tests.gkt.run_command import gkt


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    monkeypatch.setenv("GKT_CLOUD_STORE_URL", url)
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


def said(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_shown_once_and_then_only_its_beginning(url: str) -> None:
    key = said("keys", "create", "edge-1", "--expires", "90d", "--daily-usd", "2.5", "--weight", "2").strip()
    assert key.startswith("gkt_")
    shown = said("keys", "list")
    assert "edge-1" in shown
    assert "$/day 2.5" in shown
    assert key.split("_")[1] in shown
    assert key not in shown
    engine = connect(url)
    assert list_keys(engine)[0].caller.allowance.daily_nano_usd == 2_500_000_000
    engine.dispose()


def test_rotating_and_revoking(url: str) -> None:
    old = said("keys", "create", "edge-1").strip()
    new = said("keys", "rotate", "edge-1", "--grace-period", "1h").strip()
    assert new != old
    assert "1 secret ended" in said("keys", "revoke", "edge-1", "--secret", old)
    assert "1 secret ended" in said("keys", "revoke", "edge-1")
    assert "0 secrets ended" in said("keys", "revoke", "edge-1")
    assert said("keys", "list").count("revoked") == 2


def test_what_is_wrong_is_one_line(url: str) -> None:
    for wrong in (["revoke", "nobody"], ["create", "two words"], ["create", "a", "--expires", "soon"]):
        result = run("keys", *wrong)
        assert isinstance(result.exception, ConfigurationError)


async def test_without_a_database_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GKT_CLOUD_STORE_URL", raising=False)
    for command in (["keys", "list"], ["usage"]):
        outcome = await gkt(*command)
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.err.startswith("gkt: GKT_CLOUD_STORE_URL is not set")


def test_usage_by_key_and_day(url: str) -> None:
    assert "no usage" in said("usage")
    engine = connect(url)
    made = [
        LedgerRow(uuid.uuid4().hex, "r", key, "guidance", "m", "t", date(2026, 11, day), 1, None, None, 1.0, 1000, 400, 30, 0,
            "stop", None, 5_000_000)
        for key, day in [("a", 1), ("a", 2), ("b", 2)]
    ]  # fmt: skip
    with engine.begin() as connection:
        write(connection, [(row, None) for row in made], again=False)
    engine.dispose()
    table = said("usage").splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["2026-11-01", "a"], ["2026-11-02", "a"], ["2026-11-02", "b"]]
    assert table[1].split()[2:] == ["1", "1,000", "400", "30", "0", "0.005000"]
    (day,) = [json.loads(line) for line in said("usage", "--key", "a", "--since", "2026-11-02", "--json").splitlines()]
    assert (day["key"], day["day"], day["completion_tokens"], day["cost_usd"]) == ("a", "2026-11-02", 30, 0.005)
    assert "no usage" in said("usage", "--until", "2026-10-31")
