"""The text of an arm becomes a request to the edge."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.lab.arms import Arm, parse_all
from evaluation.lab.errors import BadArm


@pytest.mark.parametrize(
    ("text", "model", "gkt"),
    [
        ("off", "gkt-student", None),
        ("teacher", "gkt-teacher", None),
        ("teacher:template=maths@2", "gkt-teacher", {"template": "maths@2"}),
        ("fixed:40", "gkt", {"mode": "fixed", "max_guidance_tokens": 40}),
        (
            "fixed:max_guidance_tokens=40,template=maths",
            "gkt",
            {"mode": "fixed", "max_guidance_tokens": 40, "template": "maths"},
        ),
        ("adaptive:handback_after=3", "gkt", {"mode": "adaptive", "handback_after": 3}),
        ("on_demand:confidence_threshold=0.5", "gkt", {"mode": "on_demand", "confidence_threshold": 0.5}),
        (
            "review:acceptance_threshold=0.1,handback_after=3",
            "gkt",
            {"mode": "review", "acceptance_threshold": 0.1, "handback_after": 3},
        ),
        ("review:0.1", "gkt", {"mode": "review", "acceptance_threshold": 0.1}),
        ("outline:100", "gkt", {"mode": "outline", "max_guidance_tokens": 100}),
        (
            "review:rollout_fraction=0.5,max_correction_tokens=1",
            "gkt",
            {"mode": "review", "rollout_fraction": 0.5, "max_correction_tokens": 1},
        ),
        ("teacher:0.5", "gkt-teacher", {"rollout_fraction": 0.5}),
        ("naive:20", "gkt-teacher", None),
        ("route:confidence_threshold=0.9,probe_tokens=8", "gkt-student", None),
        ("cascade:0.9", "gkt-student", None),
    ],
)
def test_an_arm_becomes_a_request(text: str, model: str, gkt: dict[str, Any] | None) -> None:
    assert Arm.parse(text).request("1-ab", 0) == ({"model": model} | ({"gkt": gkt} if gkt else {}))


@pytest.mark.parametrize(
    ("text", "rollout_fraction", "whole"),
    [
        ("teacher", 0.35, "teacher:rollout_fraction=0.35"),
        ("review:acceptance_threshold=0.5", 0.1, "review:acceptance_threshold=0.5,rollout_fraction=0.1"),
        ("fixed:40", 1.0, "fixed:40"),
    ],
)
def test_an_arm_for_a_share_of_the_questions(text: str, rollout_fraction: float, whole: str) -> None:
    assert Arm.parse(text).with_rollout(rollout_fraction).text == whole


def test_a_random_length_is_the_questions_own() -> None:
    arm = Arm.parse("random:10-80")

    lengths = [arm.request(f"{line}-ab", 0)["gkt"]["max_guidance_tokens"] for line in range(300)]

    assert (min(lengths), max(lengths)) == (10, 80)
    assert lengths[7] == arm.request("7-ab", 0)["gkt"]["max_guidance_tokens"]
    assert lengths != [arm.request(f"{line}-ab", 1)["gkt"]["max_guidance_tokens"] for line in range(300)]
    assert arm.request("1-ab", 0)["gkt"]["mode"] == "fixed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no ''"),
        ("fixd:40", "there is no 'fixd'; the arms are off, teacher, fixed"),
        ("fixed", "fixed needs max_guidance_tokens, as in fixed:40"),
        ("fixed:", "not ''"),
        ("fixed:0", "not '0'"),
        ("fixed:-4", "not '-4'"),
        ("fixed:4.5", "not '4.5'"),
        ("fixed:40,50", "'50' is not written as key=value"),
        ("fixed:40,max_guidance_tokens=50", "max_guidance_tokens is given twice"),
        (
            "fixed:40,acceptance_threshold=0.1",
            "fixed takes no 'acceptance_threshold'; it takes max_guidance_tokens, template",
        ),
        ("off:40", "'40' is not written as key=value"),
        ("off:", "'' is not written as key=value"),
        ("random:80-10", "not '80-10'"),
        ("random:10", "not '10'"),
        ("review:acceptance_threshold=nan", "not 'nan'"),
        ("review:acceptance_threshold=inf", "not 'inf'"),
        ("review:acceptance_threshold=1", "not '1'"),
        ("review:acceptance_threshold=a", "not 'a'"),
        ("review:handback_after=0.5", "not '0.5'"),
        ("fixed:40,template=a b", "not 'a b'"),
        ("teacher:0", "rollout_fraction must be a fraction of the questions, above 0 and at most 1, not '0'"),
        ("teacher:rollout_fraction=1.5", "not '1.5'"),
        ("teacher:rollout_fraction=nan", "not 'nan'"),
        ("off:rollout_fraction=0.5", "off takes no 'rollout_fraction'"),
        ("naive:20,rollout_fraction=0.5", "naive takes no 'rollout_fraction'"),
        ("cascade", "cascade needs confidence_threshold, as in cascade:confidence_threshold=0.9"),
    ],
)
def test_a_bad_arm_is_named_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(BadArm) as raised:
        Arm.parse(text)

    assert raised.value.message.startswith(f"arm {text!r}: ")
    assert reason in raised.value.message


def test_the_same_arm_twice() -> None:
    assert [arm.text for arm in parse_all(["off", "fixed:40", "fixed:50"])] == ["off", "fixed:40", "fixed:50"]
    with pytest.raises(BadArm, match="'fixed:max_guidance_tokens=40' is given twice, also as 'fixed:40'"):
        parse_all(["fixed:40", "fixed:max_guidance_tokens=40"])
    with pytest.raises(BadArm, match="given twice"):
        parse_all(["off", "off"])
    with pytest.raises(BadArm, match="no arm to run"):
        parse_all([])
