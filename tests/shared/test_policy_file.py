"""Policy files: a written file is read back, and an error names what is invalid."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from edge_student.settings import EdgeSettings
from shared.errors import ConfigurationError
from shared.policy_file import Estimate, Evidence, PolicyFile, read_policy_file
from shared.protocol.gkt import Mode, PolicyFields

HALF = Estimate(value=0.5, low=0.4, high=0.6)
EVIDENCE = Evidence(
    task="gsm8k",
    data_sha256="0" * 64,
    tuning_lines="1-500",
    reporting_lines="501-1000",
    n=500,
    student="small",
    teacher="large",
    keep=0.95,
    accuracy_student=HALF,
    accuracy_teacher=HALF,
    accuracy_policy=HALF,
    kept_share=1.0,
    kept_share_low=0.96,
    shown=True,
    teacher_token_share=0.2,
    cost_share=0.3,
    date=datetime.date(2026, 1, 2),
    gkt_version="0.1.0",
)
POLICY = PolicyFile(
    name="maths",
    mode=Mode.REVIEW,
    max_guidance_tokens=300,
    acceptance_threshold=0.1,
    handback_after=3,
    evidence=EVIDENCE,
)


def test_whatever_a_policy_may_say_an_edges_settings_may_say() -> None:
    assert PolicyFields.model_fields.keys() <= EdgeSettings.model_fields.keys()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "new" / "policy.json"
    POLICY.write(file)
    assert read_policy_file(file) == POLICY
    assert POLICY.decided() == {
        "mode": Mode.REVIEW,
        "max_guidance_tokens": 300,
        "acceptance_threshold": 0.1,
        "handback_after": 3,
    }
    assert [entry.name for entry in file.parent.iterdir()] == ["policy.json"]


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"acceptance_threshold": NAN}, "acceptance_threshold: .*finite"),
        ({"confidence_threshold": INFINITY}, "confidence_threshold: .*finite"),
        ({"confidence_threshold": 1.5}, "confidence_threshold: .*less than or equal to 1"),
        ({"handback_after": -1}, "handback_after: .*greater than or equal to 0"),
        ({"handback_after": "3"}, "handback_after: .*valid integer"),
        ({"handback_after": 2.5}, "handback_after: "),
        ({"max_guidance_tokens": 10_000_000}, "max_guidance_tokens: "),
        ({"template": ""}, "template: "),
        ({"name": ""}, "name: "),
        ({"mode": "Guess!"}, "mode: .*pattern"),
        ({"thinking": 3}, "thinking: Extra inputs"),
        ({"format": 2}, "format: is 2; this gkt reads format 1"),
        ({"format": 2, "thinking": 3}, "format: .*this gkt reads format 1"),
        ({"format": "1"}, "format: .*this gkt reads format 1"),
        ({"format": True}, "format: .*this gkt reads format 1"),
        ({"evidence": {"task": "gsm8k"}}, r"evidence\.data_sha256: Field required"),
        ({"evidence": json.loads(EVIDENCE.model_dump_json()) | {"kept_share": NAN}}, r"evidence\.kept_share: .*finite"),
    ],
)
def test_a_bad_field_is_named_with_its_file(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(json.loads(POLICY.model_dump_json()) | change))
    with pytest.raises(ConfigurationError, match=rf"policy\.json: {named}"):
        read_policy_file(file)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\xfd", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "policy.json: Input should be an object"),
        (b"{}", "format: is missing; this gkt reads format 1"),
        (b'{"format": 1, "name": "x"}', "mode: Field required"),
    ],
)
def test_what_is_no_policy_is_said(tmp_path: Path, content: bytes, named: str) -> None:
    file = tmp_path / "policy.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=named):
        read_policy_file(file)


def test_files_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read: No such file"):
        read_policy_file(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        POLICY.write(tmp_path / "file" / "policy.json")
