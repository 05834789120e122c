"""Answers of a given structure hold it even if one side does not, with scripted students and a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from edge_student.llama.student import LlamaStudent
from edge_student.settings import EdgeSettings
from edge_student.student import StudentSampling, StudentSequence
from shared.errors import EngineFailed, InvalidRequest
from shared.model_hub.local_models import ensure_gguf
from shared.protocol.gkt import FallbackReason, Source
from shared.protocol.guidance import FinishReason, Message
from tests.edge_student.answering.test_service import Answer, answer, ask
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent
from tests.edge_student.scripted_edge import edge

TEXT = '{"eggs":18}'
SCHEMA = {"const": {"eggs": 18}}
MODEL = "smollm2-135m-instruct"


async def structured(cloud: ScriptedCloud, *words: str, **more: Any) -> tuple[Answer, ScriptedStudent]:
    student = ScriptedStudent(*words)
    request = ask(**more)
    sampling = request.sampling.model_copy(update={"structure": student.structure(SCHEMA)})
    return await answer(student, cloud, replace(request, sampling=sampling)), student


async def test_the_teacher_is_asked_for_the_same_schema() -> None:
    cloud = ScriptedCloud('{"eggs"', ":18", "}", ends=FinishReason.STOP)
    got, _ = await structured(cloud)
    assert cloud.requests[0].json_schema == SCHEMA
    assert got.texts == {0: TEXT}
    assert got.ends == {0: "stop"}
    assert got.report and got.report.fallback is None


async def test_guidance_ends_where_it_leaves_the_structure() -> None:
    cloud = ScriptedCloud('{"eggs"', ": eighteen}", " never read")
    got, student = await structured(cloud, "18", "}")
    assert got.texts == {0: TEXT}
    assert [source for source, _ in got.sources] == [Source.TEACHER, Source.TEACHER, Source.STUDENT, Source.STUDENT]
    assert student.sequences[0].guidance == '{"eggs":'
    assert cloud.closed_early == 1
    assert got.report and got.report.fallback is FallbackReason.OFF_GRAMMAR


async def test_a_teacher_that_knows_of_no_structure_is_not_listened_to() -> None:
    got, student = await structured(ScriptedCloud("Sure! ", TEXT, ends=FinishReason.STOP), TEXT)
    assert got.texts == {0: TEXT}
    assert student.sequences[0].guidance == ""
    assert got.report and got.report.fallback is FallbackReason.OFF_GRAMMAR


async def test_a_teacher_that_stops_half_way_does_not_end_the_answer() -> None:
    got, student = await structured(ScriptedCloud('{"eggs":', ends=FinishReason.STOP), "18}")
    assert got.texts == {0: TEXT}
    assert student.sequences[0].sampling


async def test_what_the_seam_drops_is_the_students_to_write() -> None:
    got, student = await structured(ScriptedCloud('{"eggs":', "1"), "18}", budget=2)
    assert student.sequences[0].guidance == '{"eggs":'
    assert got.texts == {0: TEXT}
    assert got.report and got.report.fallback is None


@pytest.mark.parametrize(
    ("response_format", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "no spaces", "schema": {}}},
            "response_format.json_schema.name",
        ),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "frog"}}}, "response_format"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "y" * 100_001}}},
            "response_format.json_schema.schema",
        ),
    ],
)
async def test_a_schema_that_cannot_be_held_to_is_an_error_before_anybody_is_asked(
    response_format: dict[str, Any], param: str
) -> None:
    async with edge() as running:
        for stream in (True, False):
            response = await running.chat(response_format=response_format, stream=stream)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert running.cloud.requests == []
        assert running.student.sequences == []


async def test_response_formats_of_the_openai_client() -> None:
    async with edge(ScriptedStudent("{}"), ScriptedCloud("no")) as running:
        create = running.openai.chat.completions.create
        messages = [{"role": "user", "content": "x"}]
        named = {"name": "eggs", "schema": SCHEMA, "strict": True}
        for response_format in (
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": named},
        ):
            await create(model="gkt", messages=messages, response_format=response_format)
        assert [request.json_schema for request in running.cloud.requests] == [None, {"type": "object"}, SCHEMA]
        used = [s.sampling.structure for s in running.student.sequences if s.sampling]
        assert [structure and structure.json_schema for structure in used] == [None, {"type": "object"}, SCHEMA]


@pytest.fixture
async def student() -> AsyncGenerator[LlamaStudent]:
    settings = EdgeSettings(context_tokens=512, max_sequences=4, batch_tokens=64, threads=1)
    student = LlamaStudent(MODEL, ensure_gguf(MODEL), settings)
    yield student
    await student.close()


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mood": {"enum": ["good", "bad"]},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
}


async def text_of(sequence: StudentSequence, sampling: StudentSampling) -> tuple[str, str | None]:
    async with aclosing(sequence.generate(sampling)) as words:
        tokens = [token async for token in words]
    return "".join(token.text for token in tokens), tokens[-1].end


def assert_person(text: str) -> None:
    person = json.loads(text)
    assert list(person) == ["name", "age", "mood"]
    assert len(person["name"]) <= 12 and 0 <= person["age"] <= 120 and person["mood"] in {"good", "bad"}


@pytest.mark.engine
async def test_whatever_is_drawn_is_valid(student: LlamaStudent) -> None:
    prompt = student.encode([Message(role="user", content="Who are you? Say it in JSON.")])
    structure = student.structure(PERSON)
    greedy = StudentSampling(max_tokens=100, structure=structure)
    text, end = await text_of(student.open(prompt), greedy)
    assert_person(text)
    assert end == "stop"
    penalised = greedy.model_copy(update={"presence_penalty": 1.0, "repetition_penalty": 1.3})
    assert_person((await text_of(student.open(prompt), penalised))[0])
    texts = set()
    for seed in range(6):
        drawn = greedy.model_copy(
            update={"temperature": 1.5, "top_p": 0.95, "top_k": 200, "typical_p": 0.95, "seed": seed}
        )
        text, _ = await text_of(student.open(prompt), drawn)
        assert_person(text)
        assert (await text_of(student.open(prompt), drawn))[0] == text, "the same seed, the same text"
        texts.add(text)
    assert len(texts) > 3


@pytest.mark.engine
async def test_it_goes_on_from_inside_the_guidance(student: LlamaStudent) -> None:
    prompt = student.encode([Message(role="user", content="Who are you? Say it in JSON.")])
    structure = student.structure(PERSON)
    for guidance in (
        '{"',
        '{"name":"B',
        '{ "name": "Bo", "age": 1',
        '{"name":"日',
        '{"name":"x","age":3,"mood":"good"}',
    ):
        sequence = student.open(prompt)
        sequence.extend(guidance)
        text, end = await text_of(
            sequence, StudentSampling(max_tokens=100, structure=structure, temperature=1.0, seed=1)
        )
        assert_person(guidance + text)
        assert end == "stop"


@pytest.mark.engine
async def test_guidance_off_the_structure_fails_that_answer_and_no_other(student: LlamaStudent) -> None:
    prompt = student.encode([Message(role="user", content="Who are you?")])
    sampling = StudentSampling(max_tokens=50, structure=student.structure(PERSON))
    sequence = student.open(prompt)
    sequence.extend("Sure!")
    with pytest.raises(EngineFailed):
        await text_of(sequence, sampling)
    sequence.close()
    assert_person((await text_of(student.open(prompt), sampling))[0])
    with pytest.raises(InvalidRequest) as failed:
        student.structure({"$ref": "#"})
    assert failed.value.param == "response_format"
