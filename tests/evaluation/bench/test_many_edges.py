"""The figures of many edges on a real cloud without a model, on a small scale."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

from evaluation.bench.many_edges import (
    LOST,
    NO_RETRY_AFTER,
    REFUSED,
    WHOLE,
    measure_fleet,
    measure_many,
    run_edges,
)
from evaluation.loadgen.apis import GUIDANCE, Server
from tests.running import serving


def silent(_: str) -> None:
    pass


@pytest.mark.system
def test_a_small_fleet_is_whole_and_counted() -> None:
    result = measure_fleet(silent, start_s=60, edges=5, tokens=20)
    values = {figure.name: figure.value for figure in result.figures}
    assert values["fleet5_lost"] == 0
    assert values["fleet5_mb_per_edge"] >= 0
    assert "fleet5_p99_added_ms" in values


@pytest.mark.system
def test_more_edges_than_there_is_room_for_are_told_to_come_back() -> None:
    result = measure_many(silent, start_s=60, edges=300, seconds=3)
    (figure,) = result.figures
    assert figure.value == 0
    assert result.raw["fleet300_whole"] > 0
    assert result.raw["fleet300_sent_away"] > 0


async def test_what_breaks_off_and_what_is_refused_without_a_word_is_counted() -> None:
    app = FastAPI()
    asked = 0

    @app.post("/v1/guidance", response_model=None)
    async def guidance() -> PlainTextResponse | JSONResponse:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        if asked == 1:
            return PlainTextResponse("event: guidance\ndata: {}\n\n")
        return JSONResponse({}, 500)

    async with serving(app, ready=False) as url:
        server = Server("cloud", url, api=GUIDANCE, key="k")
        first, later = await run_edges(server, 1, 0.1), await run_edges(server, 1, 0.1)
    assert (first[WHOLE], first[LOST]) == (0, 1)
    assert (later[WHOLE], later[LOST]) == (0, 0)
    assert later[NO_RETRY_AFTER] == later[REFUSED] >= 1
