"""An edge that requires a key from its clients."""

from __future__ import annotations

import openai
import pytest
from pydantic import ValidationError

from edge_student.settings import EdgeSettings
from tests.edge_student.scripted_edge import USER, edge

KEYS = "sesame, two"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", "Bearer sesam", "Basic sesame", "Bearer \xfcber"]
)
async def test_without_a_key_nobody_comes_in(header: str | None) -> None:
    async with edge(api_keys=KEYS) as running:
        headers = {} if header is None else {b"authorization": header.encode("latin-1")}
        body = {"messages": USER, "stream": True}
        for response in (
            await running.http.post("/v1/chat/completions", json=body, headers=headers),
            await running.http.post("/v1/completions", json={"prompt": "x"}, headers=headers),
            await running.http.get("/v1/models", headers=headers),
            await running.http.get("/v1/models/gkt", headers=headers),
        ):
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["type"], error["param"]) == (
                401,
                "invalid_api_key",
                "invalid_request_error",
                None,
            )
            assert response.headers["www-authenticate"] == "Bearer"
        assert running.student.sequences == []
        assert running.cloud.requests == []


async def test_any_of_the_keys_will_do() -> None:
    async with edge(api_keys=KEYS) as running:
        for key in ("sesame", "two"):
            client = running.openai.with_options(api_key=key)
            answer = await client.chat.completions.create(model="gkt", messages=USER)
            assert answer.choices[0].message.content == "There are 18."
        with pytest.raises(openai.AuthenticationError) as refused:
            await running.openai.models.list()
        assert refused.value.code == "invalid_api_key"


async def test_who_watches_the_edge_needs_none() -> None:
    async with edge(api_keys=KEYS) as running:
        for path in ("/health", "/ready", "/metrics"):
            assert (await running.http.get(path)).status_code == 200


def test_keys_come_with_commas_between_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_EDGE_API_KEYS", "sesame, two,")
    settings = EdgeSettings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["sesame", "two"]
    assert "sesame" not in repr(settings)
    monkeypatch.setenv("GKT_EDGE_API_KEYS", "")
    assert EdgeSettings().api_keys == ()
    with pytest.raises(ValidationError):
        EdgeSettings(api_keys=("two words",))
