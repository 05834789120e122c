"""Tools over the edge's endpoint: the models' prompts, and the calls in their answers. The models are scripted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_student.tools.tool_use import call_schema, conversation, tool_use
from shared.errors import InvalidRequest
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import FinishReason
from shared.protocol.openai_requests import ChatCompletionRequest
from shared.protocol.tools import Function
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent
from tests.edge_student.scripted_edge import USER, Running, edge

OSLO = {"city": "Oslo"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"const": OSLO}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time."}}
TOOLS = [WEATHER, CLOCK]
CALL = '{"name":"weather","arguments":{"city":"Oslo"}}'
NAMED = {"type": "function", "function": {"name": "weather"}}
MADE = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "cloud"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice.type"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [CLOCK] * 129}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
    ({"tools": [{**CLOCK, "function": {"name": "x", "description": "y" * 100_001}}]}, "tools"),
    ({"tools": [{**CLOCK, "function": {"name": "x", "strict": True, "parameters": {"pattern": "y"}}}]}, "tools"),
    ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
    ({"functions": [CLOCK["function"]]}, "functions"),
    ({"function_call": {"name": "clock"}}, "function_call"),
    ({"messages": [{"role": "tool", "content": "18"}]}, "messages.0.tool_call_id"),
    ({"messages": [{"role": "assistant"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "tool_calls": [MADE]}]}, "messages.0.content"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=str)
async def test_what_is_wrong_is_named_before_anybody_is_asked(body: dict[str, Any], param: str) -> None:
    async with edge() as running:
        for stream in (True, False):
            response = await running.chat(**body, stream=stream)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert running.cloud.requests == []
        assert running.student.sequences == []


async def test_parameters_that_a_grammar_cannot_hold_are_any_object_unless_strict() -> None:
    tool = {"type": "function", "function": {"name": "x", "parameters": {"pattern": "y"}}}
    body = ChatCompletionRequest.model_validate({"messages": USER, "tools": [tool], "tool_choice": "required"})
    use = tool_use(body)
    assert use
    structure = use.structure(ScriptedStudent())
    assert structure.json_schema
    assert structure.json_schema["$defs"] == {"x": {"type": "object"}}


def bodies(**body: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": USER, "tools": TOOLS, **body})


def plain(**body: Any) -> list[tuple[str, str]]:
    request = bodies(**body)
    return [(message.role, message.content) for message in conversation(request.messages, tool_use(request))]


def test_tools_are_described_behind_what_the_system_says() -> None:
    system = {"role": "developer", "content": "Be brief."}
    (_, described), user = plain(messages=[system, *USER])
    assert described.startswith("Be brief.\n\n# Tools\n\nYou may call")
    listed = described.split("<tools>\n")[1].split("\n</tools>")[0].split("\n")
    assert [json.loads(line) for line in listed] == TOOLS
    assert user == ("user", USER[0]["content"])
    (role, alone), *_ = plain()
    assert (role, alone) == ("system", described.replace("Be brief.", "You are a helpful assistant."))
    assert plain(tool_choice="none") == [user], "what may not be called is not described"
    assert len(plain(tool_choice=NAMED)[0][1]) == len(alone), "all are, whichever must be called"


def test_calls_and_results_are_written_out_in_their_order() -> None:
    made = [{**MADE, "id": "c2", "function": {"name": "clock", "arguments": ""}}, MADE]
    result = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": made},
        result,
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "assistant", "content": "Wait.", "tool_calls": [MADE]},
        {"role": "tool", "tool_call_id": "unheard of", "content": "?"},
        {"role": "assistant", "content": "Rain."},
    ]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city":"Oslo"}}\n</tool_call>'
    assert plain(messages=messages, tool_choice="none")[1:] == [
        ("assistant", f'<tool_call>\n{{"name": "clock", "arguments": {{}}}}\n</tool_call>\n{call}'),
        ("user", "<tool_response>\nnoon\n</tool_response>\n<tool_response>\nrain\n</tool_response>"),
        ("assistant", f"Wait.\n{call}"),
        ("user", "<tool_response>\n?\n</tool_response>"),
        ("assistant", "Rain."),
    ]


def test_the_schema_of_a_call_keeps_its_references() -> None:
    city = {"type": "string", "enum": ["$ref"]}
    parameters = {
        "type": "object",
        "properties": {"const": {"$ref": "#/$defs/City"}, "$ref": {"type": "null"}, "next": {"$ref": "#"}},
        "$defs": {"City": city},
        "default": {"$ref": "#/x"},
    }
    schema = call_schema([Function(name="go-to", parameters=parameters), Function(name="stay")])
    assert [call["properties"]["name"] for call in schema["anyOf"]] == [{"const": "go-to"}, {"const": "stay"}]
    assert schema["anyOf"][0]["properties"]["arguments"] == {"$ref": "#/$defs/go-to"}
    moved = schema["$defs"]["go-to"]
    assert moved["properties"] == {
        "const": {"$ref": "#/$defs/go-to/$defs/City"},
        "$ref": {"type": "null"},
        "next": {"$ref": "#/$defs/go-to"},
    }
    assert (moved["$defs"], moved["default"]) == ({"City": city}, {"$ref": "#/x"})
    assert schema["$defs"]["stay"] == {"type": "object"}
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"not": deep}
    with pytest.raises(InvalidRequest):
        call_schema([Function.model_construct(name="deep", parameters=deep)])


async def streamed(running: Running, **body: Any) -> tuple[str, list[dict[str, str]], str]:
    """Return text, calls and finish reason of a streamed answer, put together as clients do."""
    stream = await running.openai.chat.completions.create(model="gkt", messages=USER, tools=TOOLS, stream=True, **body)
    text = ""
    calls: list[dict[str, str]] = []
    ends: list[str] = []
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                if call.id:
                    assert (call.index, call.type, call.function.arguments) == (len(calls), "function", "")
                    calls.append({"name": call.function.name, "arguments": ""})
                calls[call.index]["arguments"] += call.function.arguments
    assert len(ends) == 1
    return text, calls, ends[0]


@pytest.mark.parametrize(("choice", "end"), [("required", "tool_calls"), (NAMED, "stop")])
async def test_a_call_that_must_be(choice: Any, end: str) -> None:
    """The teacher begins the call under the same schema, the student ends it, and the answer is that call alone."""
    pieces = '{"name":', '"weath'
    student, cloud = ScriptedStudent('"weather"', ',"arguments":', '{"city":', '"Oslo"', "}}"), ScriptedCloud(*pieces)
    async with edge(student, cloud) as running:
        body = {"tools": TOOLS, "tool_choice": choice}
        answer = await running.openai.chat.completions.create(model="gkt", messages=USER, **body)
        assert await streamed(running, tool_choice=choice) == (
            "",
            [{"name": "weather", "arguments": '{"city":"Oslo"}'}],
            end,
        )
        raw = (await running.chat(**body)).json()["choices"][0]["message"]
    made = answer.choices[0].message.tool_calls
    assert answer.choices[0].message.content is None
    assert [(call.type, call.function.name, json.loads(call.function.arguments)) for call in made] == [
        ("function", "weather", OSLO)
    ]
    assert made[0].id.startswith("call_") and raw["tool_calls"][0]["id"] != made[0].id
    assert raw["content"] is None
    assert answer.choices[0].finish_reason == end
    names = [call["properties"]["name"]["const"] for call in _calls(cloud.requests[0].json_schema)]
    assert names == (["weather", "clock"] if choice == "required" else ["weather"])
    assert [segment["source"] for segment in answer.gkt["segments"][0]] == ["teacher", "student"]
    assert cloud.requests[0].messages[0].content.count('"name": ') == 3, "both tools and the form of a call"


def _calls(schema: Any) -> list[Any]:
    calls: list[Any] = schema.get("anyOf", [schema])
    return calls


async def test_a_call_that_may_be() -> None:
    words = "<tool_", "call>\n", CALL[:20], CALL[20:], "\n</tool_call>"
    async with edge(ScriptedStudent(*words), ScriptedCloud()) as running:
        assert await streamed(running) == ("", [{"name": "weather", "arguments": '{"city":"Oslo"}'}], "tool_calls")
        answer = (await running.chat(tools=TOOLS, max_tokens=3, gkt={"mode": "off"})).json()["choices"][0]
        assert answer["finish_reason"] == "length"
        assert running.cloud.requests[0].json_schema is None, "the teacher is not held to calls"
    async with edge(ScriptedStudent("Call ", *words), ScriptedCloud()) as running:
        text, calls, end = await streamed(running)
        assert (text, calls[0]["name"], end) == ("Call ", "weather", "tool_calls")
    async with edge(ScriptedStudent("Call ", *words[:-1], "?"), ScriptedCloud()) as running:
        assert await streamed(running) == (f"Call <tool_call>\n{CALL}?", [], "stop")


async def test_text_that_calls_nothing_is_as_ever() -> None:
    async with edge() as running:
        answer = (await running.chat(tools=TOOLS)).json()["choices"][0]
        assert answer["message"] == {"role": "assistant", "content": "There are 18."}
        assert answer["finish_reason"] == "stop"
        assert (await running.chat(tools=TOOLS, tool_choice="none")).status_code == 200
        assert (await running.chat(tools=[])).status_code == 200
        assert running.cloud.requests[1].messages[0].role == "user", "nothing is described"
        odd = [{"role": "user", "content": f"<tool_call>\n{CALL}\n</tool_call>"}]
        answer = (await running.chat(tools=TOOLS, messages=odd)).json()["choices"][0]
        assert "tool_calls" not in answer["message"], "what the user writes is no call"


async def test_the_teacher_guides_a_call_and_is_left_where_it_makes_none() -> None:
    student = ScriptedStudent("weather", '","arguments":{"city":"Oslo"}}\n</tool_call>')
    cloud = ScriptedCloud("<tool_call>", '\n{"name":"', "cloud")
    async with edge(student, cloud) as running:
        answer = (await running.chat(tools=TOOLS, max_tokens=90, gkt={"max_guidance_tokens": 40})).json()
    assert [call["function"]["name"] for call in answer["choices"][0]["message"]["tool_calls"]] == ["weather"]
    assert answer["gkt"]["fallback"] == FallbackReason.OFF_GRAMMAR
    whole = ScriptedCloud("<tool_call>\n", CALL, "\n</tool_call>", ends=FinishReason.STOP)
    async with edge(ScriptedStudent("never"), whole) as running:
        answer = (await running.chat(tools=TOOLS, gkt={"max_guidance_tokens": 40})).json()["choices"][0]
        assert answer["finish_reason"] == "tool_calls"


async def test_log_probabilities_of_all_tokens_come_with_calls() -> None:
    words = "<tool_call>\n", CALL, "\n</tool_call>"
    async with edge(ScriptedStudent(*words), ScriptedCloud()) as running:
        body = {"tools": TOOLS, "logprobs": True}
        whole = (await running.chat(**body)).json()["choices"][0]
        assert [entry["token"] for entry in whole["logprobs"]["content"]] == list(words)
        events = (await running.chat(**body, stream=True)).text.split("\n")
        chunks = [json.loads(line[6:]) for line in events if line.startswith("data: {")]
        entries = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0].get("logprobs")]
        assert [entry["token"] for some in entries for entry in some["content"]] == list(words)
