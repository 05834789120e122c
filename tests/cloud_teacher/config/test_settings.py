from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cloud_teacher.config.settings import CloudSettings
from shared.errors import ConfigurationError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "cloud.example"])
def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    with pytest.raises(ConfigurationError, match="GKT_CLOUD_KEYS"):
        CloudSettings(host=host)
    assert CloudSettings(host=host, keys=("k",)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_none_is(host: str) -> None:
    assert not CloudSettings(host=host).keys


def test_keys_come_with_commas_between_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_CLOUD_KEYS", "sesame, two,")
    settings = CloudSettings()
    assert [key.get_secret_value() for key in settings.keys] == ["sesame", "two"]
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize("wrong", [{"keys": ["two words"]}, {"keys": ["\xfc"]}, {"keys": [""]}, {"port": 70000}])
def test_a_field_that_is_wrong_by_itself(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CloudSettings(**wrong)


def test_fields_that_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="must be below max_model_len"):
        CloudSettings(max_prompt_tokens=4096, max_model_len=4096)
    with pytest.raises(ConfigurationError, match="set both or none"):
        CloudSettings(input_usd_per_million=1)


def test_every_field_is_documented() -> None:
    assert all(field.description for field in CloudSettings.model_fields.values())
