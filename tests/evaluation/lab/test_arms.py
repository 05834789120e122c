"""What an arm's text asks of the edge."""

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
        ("fixed:tokens=40,template=maths", "gkt", {"mode": "fixed", "max_guidance_tokens": 40, "template": "maths"}),
        ("adaptive:agree=3", "gkt", {"mode": "adaptive", "agree": 3}),
        ("on_demand:sure=0.5", "gkt", {"mode": "on_demand", "sure": 0.5}),
        ("review:doubt=0.1,agree=3", "gkt", {"mode": "review", "doubt": 0.1, "agree": 3}),
        ("review:0.1", "gkt", {"mode": "review", "doubt": 0.1}),
        ("draft:100", "gkt", {"mode": "draft", "max_guidance_tokens": 100}),
        ("review:share=0.5,turn=1", "gkt", {"mode": "review", "share": 0.5, "turn": 1}),
        ("teacher:0.5", "gkt-teacher", {"share": 0.5}),
        ("naive:20", "gkt-teacher", None),
        ("route:sure=0.9,tokens=8", "gkt-student", None),
        ("cascade:0.9", "gkt-student", None),
    ],
)
def test_an_arm_becomes_a_request(text: str, model: str, gkt: dict[str, Any] | None) -> None:
    assert Arm.parse(text).request("1-ab", 0) == ({"model": model} | ({"gkt": gkt} if gkt else {}))


@pytest.mark.parametrize(
    ("text", "share", "whole"),
    [
        ("teacher", 0.35, "teacher:share=0.35"),
        ("review:doubt=0.5", 0.1, "review:doubt=0.5,share=0.1"),
        ("fixed:40", 1.0, "fixed:40"),
    ],
)
def test_an_arm_for_a_share_of_the_questions(text: str, share: float, whole: str) -> None:
    assert Arm.parse(text).for_share(share).text == whole


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
        ("fixd:40", "there is no 'fixd'; there are off, teacher, fixed"),
        ("fixed", "fixed needs tokens, as in fixed:40"),
        ("fixed:", "'' is none"),
        ("fixed:0", "'0' is none"),
        ("fixed:-4", "'-4' is none"),
        ("fixed:4.5", "'4.5' is none"),
        ("fixed:40,50", "'50' is no key=value"),
        ("fixed:40,tokens=50", "tokens stands there twice"),
        ("fixed:40,doubt=0.1", "fixed takes no 'doubt'; it takes tokens, template"),
        ("off:40", "'40' is no key=value"),
        ("off:", "'' is no key=value"),
        ("random:80-10", "'80-10' is none"),
        ("random:10", "'10' is none"),
        ("review:doubt=nan", "'nan' is none"),
        ("review:doubt=inf", "'inf' is none"),
        ("review:doubt=1", "'1' is none"),
        ("review:doubt=a", "'a' is none"),
        ("review:agree=0.5", "'0.5' is none"),
        ("fixed:40,template=a b", "'a b' is none"),
        ("teacher:0", "share is A share of the questions, above 0, at most 1; '0' is none"),
        ("teacher:share=1.5", "'1.5' is none"),
        ("teacher:share=nan", "'nan' is none"),
        ("off:share=0.5", "off takes no 'share'"),
        ("naive:20,share=0.5", "naive takes no 'share'"),
        ("cascade", "cascade needs sure, as in cascade:sure=0.9"),
    ],
)
def test_a_bad_arm_is_named_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(BadArm) as raised:
        Arm.parse(text)

    assert raised.value.message.startswith(f"arm {text!r}: ")
    assert reason in raised.value.message


def test_the_same_arm_twice() -> None:
    assert [arm.text for arm in parse_all(["off", "fixed:40", "fixed:50"])] == ["off", "fixed:40", "fixed:50"]
    with pytest.raises(BadArm, match="'fixed:tokens=40' is given twice, also as 'fixed:40'"):
        parse_all(["fixed:40", "fixed:tokens=40"])
    with pytest.raises(BadArm, match="given twice"):
        parse_all(["off", "off"])
    with pytest.raises(BadArm, match="nothing to run"):
        parse_all([])
