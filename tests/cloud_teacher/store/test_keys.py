from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from cloud_teacher.auth.caller import Allowance, Role
from cloud_teacher.store.keys import create, list_keys, revoke, rotate, split
from shared.errors import ConfigurationError

HOUR_MS = 3_600_000


def test_a_key_is_shown_once_and_kept_as_its_hash_alone(engine: Engine) -> None:
    key = create(engine, "edge-1", Allowance(weight=2, daily_tokens=10**12, daily_nano_usd=2 * 10**9))
    (found,) = list_keys(engine)
    assert found.caller.name == "edge-1"
    assert found.caller.allowance == Allowance(weight=2, daily_tokens=10**12, daily_nano_usd=2 * 10**9)
    assert found.caller.role is Role.VIEWER
    assert split(key) == (found.secrets[0].id, found.secrets[0].digest)
    random_part = key.split("_", 2)[2]
    assert len(random_part) == 43, "256 bits"
    with engine.begin() as connection:
        rows = [*connection.execute(text("SELECT * FROM keys")), *connection.execute(text("SELECT * FROM secrets"))]
    assert random_part not in str(rows)


def test_keys_differ_and_a_name_is_one_callers_for_ever(engine: Engine) -> None:
    assert create(engine, "a", Allowance()) != create(engine, "b", Allowance())
    revoke(engine, "a")
    with pytest.raises(ConfigurationError, match="exists or existed before"):
        create(engine, "a", Allowance())


@pytest.mark.parametrize("name", ["", "two words", "a/b", "1st", "anyone", "deadbeef", "x" * 65, "\xfc"])
def test_names_that_would_be_taken_for_something_else_are_refused(engine: Engine, name: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid key name"):
        create(engine, name, Allowance())


def test_a_key_that_was_revoked_or_has_expired_works_no_more(engine: Engine) -> None:
    create(engine, "stays", Allowance(), lifetime_ms=HOUR_MS)
    create(engine, "expired", Allowance(), lifetime_ms=0)
    create(engine, "revoked", Allowance())
    assert revoke(engine, "revoked") == 1
    assert revoke(engine, "revoked") == 0
    assert [key.caller.name for key in list_keys(engine, valid_only=True)] == ["stays"]
    assert [key.caller.name for key in list_keys(engine)] == ["expired", "revoked", "stays"]


def test_rotation_overlaps_and_keeps_what_the_key_is(engine: Engine) -> None:
    first = create(engine, "edge", Allowance(max_running=3))
    second = rotate(engine, "edge", grace_ms=HOUR_MS)
    (key,) = list_keys(engine, valid_only=True)
    assert key.caller.allowance.max_running == 3
    assert [secret.id for secret in key.secrets] == [first.split("_")[1], second.split("_")[1]]
    old, new = key.secrets
    ends = old.ends_ms()
    assert ends is not None
    assert 0 < ends - new.created_ms <= HOUR_MS
    assert new.ends_ms() is None

    third = rotate(engine, "edge", grace_ms=0)
    (key,) = list_keys(engine, valid_only=True)
    assert [secret.id for secret in key.secrets] == [third.split("_")[1]]


def test_a_rotation_never_makes_an_old_secret_last_longer(engine: Engine) -> None:
    create(engine, "edge", Allowance(), lifetime_ms=HOUR_MS)
    before = list_keys(engine)[0].secrets[0].expires_ms
    rotate(engine, "edge", grace_ms=100 * HOUR_MS)
    assert list_keys(engine)[0].secrets[0].expires_ms == before


def test_one_secret_of_a_key_can_be_ended_alone(engine: Engine) -> None:
    leaked = create(engine, "edge", Allowance())
    rotate(engine, "edge", grace_ms=HOUR_MS)
    assert revoke(engine, "edge", secret_id=leaked.split("_")[1]) == 1
    (key,) = list_keys(engine, valid_only=True)
    assert len(key.secrets) == 1


def test_what_is_not_there_is_said(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="key named 'nobody'"):
        revoke(engine, "nobody")
    with pytest.raises(ConfigurationError, match="key named 'nobody'"):
        rotate(engine, "nobody", grace_ms=0)
    create(engine, "a", Allowance())
    with pytest.raises(ConfigurationError, match="secret 'zz'"):
        revoke(engine, "a", secret_id="zz")


@pytest.mark.parametrize("key", ["", "sesame", "gkt_", "gkt__x", "GKT_a_b"])
def test_what_is_no_key_of_ours_is_not_looked_up(key: str) -> None:
    assert split(key) is None
