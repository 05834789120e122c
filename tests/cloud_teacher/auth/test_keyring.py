"""The service accepts the keys of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from cloud_teacher.app import create_app
from cloud_teacher.auth.caller import Allowance
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.store.database import now_ms
from cloud_teacher.store.keyring import StoredKeyring
from cloud_teacher.store.keys import Key, create, list_keys, revoke, rotate
from shared.errors import NotReady, Unauthorized
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.running import serving

QUESTION = {"messages": [{"role": "user", "content": "?"}], "max_guidance_tokens": 5}


@asynccontextmanager
async def replica(url: str, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    app = create_app(CloudSettings(store_url=SecretStr(url), **settings), teacher=ScriptedTeacher("a", "b"))
    async with serving(app) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


async def status(client: httpx.AsyncClient, key: str) -> int:
    response = await client.post("/v1/guidance", json=QUESTION, headers={"authorization": f"Bearer {key}"})
    return response.status_code


async def until(client: httpx.AsyncClient, key: str, wanted: int) -> None:
    while await status(client, key) != wanted:
        await asyncio.sleep(0.05)


async def test_every_replica_follows_as_keys_are_made_rotated_and_revoked(store_url: str, engine: Engine) -> None:
    async with replica(store_url) as one, replica(store_url) as other:
        first = create(engine, "edge", Allowance())
        assert await status(one, "gkt_0_0") == 401
        await asyncio.gather(until(one, first, 200), until(other, first, 200))
        second = rotate(engine, "edge", grace_ms=3_600_000)
        await asyncio.gather(until(one, second, 200), until(other, second, 200))
        assert await status(one, first) == 200, "the old one works beside it"
        revoke(engine, "edge")
        for client in (one, other):
            await asyncio.gather(until(client, first, 401), until(client, second, 401))


async def test_keys_of_the_settings_go_on_working_beside_them(store_url: str, engine: Engine) -> None:
    stored = create(engine, "edge", Allowance())
    async with replica(store_url, keys=("sesame", "gkt_looks_so")) as client:
        assert [await status(client, key) for key in ("sesame", "gkt_looks_so", stored, "no")] == [200, 200, 200, 401]


async def test_with_a_database_a_key_is_always_needed(store_url: str) -> None:
    async with replica(store_url) as client:
        assert (await client.post("/v1/guidance", json=QUESTION)).status_code == 401
        assert await status(client, "anything") == 401


async def test_a_key_that_expires_between_two_readings_works_no_more(engine: Engine) -> None:
    key = create(engine, "edge", Allowance(), lifetime_ms=1000)
    kept = list_keys(engine)

    async def load() -> list[Key]:
        return kept

    keyring = StoredKeyring((), load)
    with pytest.raises(NotReady):
        keyring.identify(f"Bearer {key}")
    await keyring.read()
    assert keyring.identify(f"Bearer {key}").name == "edge"
    with pytest.raises(Unauthorized):
        keyring.identify(f"Bearer {key}x")
    ends_ms = kept[0].secrets[0].ends_ms()
    while now_ms() < (ends_ms or 0):
        await asyncio.sleep(0.01)
    with pytest.raises(Unauthorized):
        keyring.identify(f"Bearer {key}")
