"""Tools in a request: what the models read of them, and what an answer with them must look like.

Both models get a plain conversation, in the form that Hermes' and Qwen's chat templates give it, whatever the template of
each of them knows of tools. So the teacher's guidance and the student's part are written under the same description.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from edge_student.student import Structure, Student
from edge_student.tools.parser import CLOSE, OPEN, ToolCallParser
from shared.errors import InvalidRequest
from shared.protocol.guidance import Message
from shared.protocol.messages import ChatMessage
from shared.protocol.openai_requests import ChatCompletionRequest
from shared.protocol.tools import Function, Tool, ToolCall

DESCRIPTION = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
"""As Qwen2.5's chat template writes it."""
SYSTEM = "You are a helpful assistant."
"""What stands before the description where a conversation has no system message."""

_LITERALS = frozenset({"const", "enum", "default", "example", "examples"})
"""Keywords of JSON schema whose values are no schemas."""
_MAPS = frozenset({"properties", "$defs", "definitions"})
"""Keywords whose values are schemas by their names."""


@dataclass(frozen=True)
class ToolUse:
    """The tools that an answer may call, or must."""

    tools: tuple[Tool, ...]
    """All that are described."""
    must: bool
    named: bool
    """Whether the request says which one."""
    functions: tuple[Function, ...]
    """Those that may be called."""
    parallel: bool
    """Whether there may be several calls. Where there must be one, one it is."""

    def structure(self, student: Student) -> Structure:
        """What the answer must look like. Raises InvalidRequest where the student cannot hold to the parameters of a function
        that is `strict`; of another one they are then any object.
        """
        schema = call_schema([_loosened(function, student) for function in self.functions])
        if self.must:
            return student.structure(schema, param="tools")
        return student.text_or_calls(schema, parallel=self.parallel)

    def parser(self) -> ToolCallParser:
        return ToolCallParser([function.name for function in self.functions], whole=self.must)


def tool_use(body: ChatCompletionRequest) -> ToolUse | None:
    """What a request says of tools; None where none is to be called. Raises InvalidRequest."""
    for field, given in (("functions", body.functions), ("function_call", body.function_call)):
        if given and given != "none":
            raise InvalidRequest(f"{field}: the older form is not supported; use tools and tool_choice", param=field)
    tools, choice = tuple(body.tools or ()), body.tool_choice
    kind = choice.type if choice else "auto" if tools else "none"
    if kind == "none":
        return None
    if not tools:
        raise InvalidRequest("tool_choice: there are no tools to choose from", param="tool_choice")
    if body.response_format and body.response_format.schema_of_answer is not None:
        raise InvalidRequest(
            "response_format: an answer that may call tools cannot be held to JSON too; say tool_choice none",
            param="response_format",
        )
    functions = tuple(tool.function for tool in tools)
    name = choice.function.name if choice and choice.function and kind == "function" else None
    chosen = functions if name is None else tuple(function for function in functions if function.name == name)
    if not chosen:
        raise InvalidRequest("tool_choice: there is no tool of that name", param="tool_choice")
    return ToolUse(
        tools,
        must=kind != "auto",
        named=name is not None,
        functions=chosen,
        parallel=body.parallel_tool_calls is not False,
    )


def _loosened(function: Function, student: Student) -> Function:
    if function.strict or not function.parameters:
        return function
    try:
        student.structure(function.parameters, param="tools")
    except InvalidRequest:
        return function.model_copy(update={"parameters": None})
    return function


def call_schema(functions: Sequence[Function]) -> dict[str, Any]:
    """The JSON schema of a call of one of the functions. Raises InvalidRequest for parameters that are nested too deeply."""
    # The parameters become definitions under their function's name: so references inside of them stay short, and cannot meet.
    definitions = {}
    for function in functions:
        try:
            parameters = _moved(function.parameters or {}, f"#/$defs/{function.name}")
        except RecursionError:
            raise InvalidRequest(f"tools: {function.name}: nested too deeply", param="tools") from None
        definitions[function.name] = parameters or {"type": "object"}
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{name}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name in definitions
    ]
    return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": definitions}


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references into itself are right where it stands at `place` of another one."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = place + value[1:]
        elif key in _MAPS and isinstance(value, dict):
            moved[key] = {name: _moved(one, place) for name, one in value.items()}
        else:
            moved[key] = value if key in _LITERALS else _moved(value, place)
    return moved


def conversation(messages: Sequence[ChatMessage], use: ToolUse | None) -> list[Message]:
    """The messages as both models take them: calls and results written out, and the tools described to the system."""
    plain = list(_plain(messages))
    if use is None:
        return plain
    description = DESCRIPTION.format(tools="\n".join(tool.described() for tool in use.tools))
    first = next((at for at, message in enumerate(plain) if message.role == "system"), None)
    if first is None:
        return [Message(role="system", content=f"{SYSTEM}\n\n{description}"), *plain]
    plain[first] = Message(role="system", content=f"{plain[first].content}\n\n{description}")
    return plain


def _plain(messages: Iterable[ChatMessage]) -> Iterator[Message]:
    calls: list[str] = []
    for are_results, run in groupby(messages, key=lambda message: message.role == "tool"):
        if are_results:
            # A result does not say which call it is of but by its place, so they come in the order of the calls.
            order = {identity: at for at, identity in enumerate(calls)}
            results = sorted(run, key=lambda message: order.get(message.tool_call_id or "", len(order)))
            said = "\n".join(f"<tool_response>\n{message.text}\n</tool_response>" for message in results)
            yield Message(role="user", content=said)
            continue
        for message in run:
            made = (message.tool_calls or ()) if message.role == "assistant" else ()
            calls = [call.id for call in made]
            text = "\n".join([*([message.text] if message.text or not made else []), *map(_written, made)])
            yield message.plain().model_copy(update={"content": text})


def _written(call: ToolCall) -> str:
    """A call as the model wrote it, to the letter: so its tokens are those that the student may have computed already."""
    name, arguments = json.dumps(call.function.name, ensure_ascii=False), call.function.arguments.strip() or "{}"
    return f'{OPEN}\n{{"name": {name}, "arguments": {arguments}}}\n{CLOSE}'
