from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ConfigurationError, UnknownModelName
from shared.model_hub.catalog import Catalog
from shared.model_hub.local_models import ensure_gguf
from tests.shared.model_hub.package_index import pinned


def test_what_comes_with_gkt() -> None:
    catalog = Catalog.load()
    assert list(catalog.models) == [
        "qwen2.5-coder-1.5b-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "smollm2-135m-instruct",
    ]
    assert {entry.licence for entry in catalog.models.values()} == {"Apache-2.0"}
    assert [source.kind for source in catalog.get("qwen2.5-coder-1.5b-instruct").sources] == ["hub", "index"]


def test_an_unknown_name_hears_of_those_near() -> None:
    with pytest.raises(UnknownModelName, match=r"Similar names: qwen2\.5-coder-0\.5b-instruct"):
        ensure_gguf("qwen2.5-coder-0.5b")


@pytest.mark.parametrize(
    "wrong",
    ['[models.a]\ntitle = "A"', "models = 3", "models.a = 3", "[other]", "not TOML", '[models."A/B"]'],
)
def test_a_catalogue_that_is_none(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(wrong)
    with pytest.raises(ConfigurationError, match=r"catalog\.toml"):
        Catalog.load(path)


def test_a_catalogue_with_an_unknown_field(tmp_path: Path) -> None:
    path = pinned(tmp_path)
    path.write_text(path.read_text().replace("[models.tiny]", "[models.tiny]\nsha1 = 'x'"))
    with pytest.raises(ConfigurationError, match="sha1"):
        Catalog.load(path)
