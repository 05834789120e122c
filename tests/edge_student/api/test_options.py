"""Options of a request: invalid ones are named in the error, valid ones reach both sides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.edge_student.scripted_edge import edge

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"top_k": -2}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"typical_p": 0}, "typical_p"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"50": 101}}, "logit_bias.50"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"cache_salt": ""}, "cache_salt"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=[param for _, param in WRONG])
async def test_wrong_values_are_named(body: dict[str, Any], param: str) -> None:
    async with edge() as running:
        answers = [
            await running.chat(**body),
            await running.chat(**body, stream=True),
            await running.http.post("/v1/completions", json={"prompt": "x", **body}),
        ]
        assert [(a.status_code, a.json()["error"]["param"]) for a in answers] == [(400, param)] * 3
        assert running.cloud.requests == []


async def test_how_words_are_chosen_reaches_both_sides() -> None:
    values = {"top_k": 7, "min_p": 0.1, "top_p": 0.9, "temperature": 0.5, "seed": 3}
    penalties = {"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.2}
    alone = {"typical_p": 0.8, "logit_bias": {"50": -100, "51": 2.5}}
    both = {**values, **penalties}
    async with edge() as running:
        assert (await running.chat(**both, **alone)).status_code == 200
        asked = running.cloud.requests[0].model_dump()
        assert {name: asked[name] for name in both} == both
        text = {"prompt": "Once", **both, **alone}
        assert (await running.http.post("/v1/completions", json=text)).status_code == 200
    for sequence in running.student.sequences:
        assert sequence.sampling
        chosen = sequence.sampling.model_dump()
        assert {name: chosen[name] for name in both} == both
        assert (chosen["typical_p"], chosen["logit_bias"]) == (0.8, ((50, -100.0), (51, 2.5)))


async def test_the_teacher_that_a_request_names_wins_over_the_edges() -> None:
    async with edge(teacher="gpt") as running:
        for options in ({}, {"teacher": "qwen"}):
            assert (await running.chat(gkt=options)).status_code == 200
        wrong = await running.chat(gkt={"teacher": ""})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "gkt.teacher")
        assert [request.model for request in running.cloud.requests] == ["gpt", "qwen"]
    async with edge() as running:
        await running.chat()
        assert running.cloud.requests[0].model is None


@pytest.mark.parametrize(
    "gkt",
    [{"mode": mode} for mode in ("fixed", "outline", "review")] + [{"mode": "on_demand", "confidence_threshold": 0.99}],
)
async def test_a_salt_for_the_caches_reaches_both_sides(gkt: dict[str, Any]) -> None:
    async with edge() as running:
        assert (await running.chat(gkt=gkt, cache_salt="alice")).status_code == 200
        assert {request.cache_salt for request in running.cloud.requests} == {"alice"}
        text = {"prompt": "Once", "cache_salt": "alice"}
        assert (await running.http.post("/v1/completions", json=text)).status_code == 200
    assert {sequence.cache_salt for sequence in running.student.sequences} == {"alice"}
