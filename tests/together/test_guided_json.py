"""JSON that a teacher on vLLM begins and a student on llama.cpp ends is valid under its schema for every seed."""

from __future__ import annotations

import json
from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.conftest import CloudProcess
from tests.together.test_pair import QWEN, SMOLLM, chat, chunks, edge, text_of

pytestmark = pytest.mark.timeout(600)


class Pet(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=10)
    legs: int = Field(ge=0, le=8)


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=20)
    mood: Literal["good", "bad"]
    age: int | None
    pets: list[Pet] = Field(max_length=2)


SCHEMA = Person.model_json_schema()
QUESTION = [{"role": "user", "content": "Invent a person with a pet, as JSON with name, mood, age and pets."}]
BODY: dict[str, Any] = {
    "messages": QUESTION,
    "max_tokens": 200,
    "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}},
}


@pytest.mark.parametrize(("model", "seeds"), [(SMOLLM, 8), (QWEN, 3)])
async def test_a_guided_answer_is_valid_json_under_its_schema(
    cloud_process: CloudProcess, model: str, seeds: int
) -> None:
    texts = set()
    async with edge(cloud_process, model=model) as client:
        for seed in range(seeds):
            # From a budget that ends in the first name to one that has room for all of it.
            answer = await chat(client, **BODY, temperature=1.0, seed=seed, gkt={"max_guidance_tokens": 4 + 6 * seed})
            text = answer["choices"][0]["message"]["content"]
            Person.model_validate_json(text)
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert answer["gkt"]["fallback"] is None, "the teacher keeps to the schema, and to the student's grammar"
            assert answer["gkt"]["segments"][0][0]["source"] == "teacher"
            assert answer["gkt"]["segments"][0][0]["chars"] > 0
            texts.add(text)
    assert len(texts) == seeds


@pytest.mark.parametrize("model", [SMOLLM, QWEN])
async def test_a_guided_call_of_a_tool_is_valid_under_its_parameters(cloud_process: CloudProcess, model: str) -> None:
    person = {"name": "add-person", "description": "Add a person to the list.", "parameters": SCHEMA}
    nothing = {"name": "wait", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function} for function in (person, nothing)]
    body: dict[str, Any] = {"messages": QUESTION, "max_tokens": 250, "tools": tools, "temperature": 1.0}
    async with edge(cloud_process, model=model) as client:
        named = {"type": "function", "function": {"name": "add-person"}}
        for choice, budget in (("required", 6), (named, 40)):
            answer = await chat(client, **body, tool_choice=choice, seed=1, gkt={"max_guidance_tokens": budget})
            [call] = answer["choices"][0]["message"]["tool_calls"]
            if call["function"]["name"] == "add-person":
                Person.model_validate_json(call["function"]["arguments"])
            else:
                assert (choice, json.loads(call["function"]["arguments"])) == ("required", {})
            assert answer["gkt"]["fallback"] is None, "the teacher keeps to the schema, references and all"
            assert answer["gkt"]["segments"][0][0]["source"] == "teacher"
        free = await chat(client, **body, seed=1)
        assert free["gkt"]["fallback"] in {None, "off_grammar"}
        for call in free["choices"][0]["message"].get("tool_calls", []):
            assert call["function"]["name"] in {"add-person", "wait"}


async def test_streamed_with_choices_and_from_the_teacher_alone(cloud_process: CloudProcess) -> None:
    async with edge(cloud_process) as client:
        stream = await chunks(client, **BODY, temperature=1.0, seed=3)
        Person.model_validate_json(text_of(stream))
        several = await chat(client, **BODY, temperature=1.0, seed=3, n=3)
        for choice in several["choices"]:
            Person.model_validate_json(choice["message"]["content"])
        alone = await chat(client, **BODY, temperature=1.0, seed=3, model="gkt-teacher")
        Person.model_validate_json(alone["choices"][0]["message"]["content"])
        student = await chat(client, **BODY, temperature=1.0, seed=3, model="gkt-student")
        Person.model_validate_json(student["choices"][0]["message"]["content"])
        anything = await chat(client, **{**BODY, "response_format": {"type": "json_object"}}, seed=1)
        if anything["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(anything["choices"][0]["message"]["content"]), dict)
        assert anything["choices"][0]["message"]["content"].startswith("{")


async def test_the_cloud_holds_its_teacher_to_a_schema_or_says_that_it_cannot(cloud_process: CloudProcess) -> None:
    async with httpx.AsyncClient(base_url=cloud_process.url, headers=cloud_process.headers, timeout=60) as client:
        body = {"messages": QUESTION, "max_guidance_tokens": 120}
        events = (await client.post("/v1/guidance", json={**body, "json_schema": {"enum": ["red", "blue"]}})).text
        data = [json.loads(line[6:]) for line in events.split("\n") if line.startswith("data: ")]
        assert "".join(event["text"] for event in data if "text" in event) in {'"red"', '"blue"'}
        wrong: Any
        odd: Any
        for wrong in (
            {"type": "frog"},
            {"type": "integer", "multipleOf": 3},
            {"$ref": "#/nowhere"},
            {"allOf": [{}, {}]},
        ):
            refused = await client.post("/v1/guidance", json={**body, "json_schema": wrong})
            assert refused.status_code == 400, wrong
            assert refused.json()["error"]["param"] == "json_schema"
        for odd in (
            {},
            {"$ref": "#"},
            {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            {"enum": []},
            {"type": []},
            {"pattern": "("},
        ):
            await client.post("/v1/guidance", json={**body, "json_schema": odd, "max_guidance_tokens": 3})
        fine = await client.post("/v1/guidance", json={**body, "max_guidance_tokens": 3})
        assert "event: done" in fine.text, "the engine lives on"


async def test_a_schema_that_only_the_student_can_hold_is_the_students_alone(cloud_process: CloudProcess) -> None:
    """vLLM rejects the constant below as an unsupported schema. The edge's circuit breaker must stay closed."""
    only = {"type": "integer", "multipleOf": 2}
    named = {"name": "rule", "schema": {"const": only}}
    async with edge(cloud_process, breaker_failures=1) as client:
        for _ in range(2):
            answer = await chat(client, **{**BODY, "response_format": {"type": "json_schema", "json_schema": named}})
            assert json.loads(answer["choices"][0]["message"]["content"]) == only
            assert answer["gkt"]["fallback"] == "rejected"
