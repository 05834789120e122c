"""Tools in a request: their description for the models, and the structure of an answer with calls.

Both models get a plain conversation in the form of Hermes' and Qwen's chat templates, whether or not their own templates support
tools. So the teacher and the student write under the same description.
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
"""Description of the tools, as Qwen2.5's chat template writes it."""
SYSTEM = "You are a helpful assistant."
"""System message in front of the description if the conversation has none."""

_LITERALS = frozenset({"const", "enum", "default", "example", "examples"})
"""Keywords of JSON Schema whose values are not schemas."""
_MAPS = frozenset({"properties", "$defs", "definitions"})
"""Keywords whose values are objects of schemas, by name."""


@dataclass(frozen=True)
class ToolUse:
    """The tools that an answer may or must call."""

    tools: tuple[Tool, ...]
    """All tools of the request. The models read their descriptions."""
    must: bool
    """True if the answer must be a call."""
    named: bool
    """True if the request names the function to call."""
    functions: tuple[Function, ...]
    """Functions that may be called."""
    parallel: bool
    """True if several calls are allowed. An answer that must be a call has exactly one."""

    def structure(self, student: Student) -> Structure:
        """Return the structure of the answer.

        Raises InvalidRequest if the parameters of a `strict` function are not supported. Those of any other function are then
        an arbitrary object.
        """
        schema = call_schema([_loosen(function, student) for function in self.functions])
        if self.must:
            return student.structure(schema, param="tools")
        return student.text_or_calls(schema, parallel=self.parallel)

    def parser(self) -> ToolCallParser:
        """Return a new parser for one answer."""
        return ToolCallParser([function.name for function in self.functions], whole=self.must)


def tool_use(body: ChatCompletionRequest) -> ToolUse | None:
    """Return the tools of a request, or None if none may be called. Raises InvalidRequest."""
    for field, given in (("functions", body.functions), ("function_call", body.function_call)):
        if given and given != "none":
            raise InvalidRequest(f"{field}: not supported; use tools and tool_choice", param=field)
    tools, choice = tuple(body.tools or ()), body.tool_choice
    kind = choice.type if choice else "auto" if tools else "none"
    if kind == "none":
        return None
    if not tools:
        raise InvalidRequest("tool_choice: requires tools, and the request has none", param="tool_choice")
    if body.response_format and body.response_format.schema_of_answer is not None:
        raise InvalidRequest(
            "response_format: JSON cannot be combined with tools; set tool_choice to none",
            param="response_format",
        )
    functions = tuple(tool.function for tool in tools)
    name = choice.function.name if choice and choice.function and kind == "function" else None
    chosen = functions if name is None else tuple(function for function in functions if function.name == name)
    if not chosen:
        raise InvalidRequest(f"tool_choice: unknown function {name!r:.80}", param="tool_choice")
    return ToolUse(
        tools,
        must=kind != "auto",
        named=name is not None,
        functions=chosen,
        parallel=body.parallel_tool_calls is not False,
    )


def _loosen(function: Function, student: Student) -> Function:
    """Return the function without its parameters if they are not strict and the student does not support them."""
    if function.strict or not function.parameters:
        return function
    try:
        student.structure(function.parameters, param="tools")
    except InvalidRequest:
        return function.model_copy(update={"parameters": None})
    return function


def call_schema(functions: Sequence[Function]) -> dict[str, Any]:
    """Return the JSON schema of a call of one of the functions. Raises InvalidRequest if parameters are nested too deeply."""
    # The parameters become definitions under the name of their function, so that references inside them cannot collide.
    definitions = {}
    for function in functions:
        try:
            parameters = _relocate(function.parameters or {}, f"#/$defs/{function.name}")
        except RecursionError:
            raise InvalidRequest(
                f"tools: the parameters of {function.name} are nested too deeply", param="tools"
            ) from None
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


def _relocate(schema: Any, place: str) -> Any:
    """Return a schema whose references into itself stay valid when it is moved to `place` in another schema."""
    if isinstance(schema, list):
        return [_relocate(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = place + value[1:]
        elif key in _MAPS and isinstance(value, dict):
            moved[key] = {name: _relocate(one, place) for name, one in value.items()}
        else:
            moved[key] = value if key in _LITERALS else _relocate(value, place)
    return moved


def conversation(messages: Sequence[ChatMessage], use: ToolUse | None) -> list[Message]:
    """Return the messages for both models: calls and results as plain text, the tools described in the system message."""
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
            # In plain text a result belongs to a call by its position only, so results are put in the order of the calls.
            order = {identity: at for at, identity in enumerate(calls)}
            results = sorted(run, key=lambda message: order.get(message.tool_call_id or "", len(order)))
            text = "\n".join(f"<tool_response>\n{message.text}\n</tool_response>" for message in results)
            yield Message(role="user", content=text)
            continue
        for message in run:
            made = (message.tool_calls or ()) if message.role == "assistant" else ()
            calls = [call.id for call in made]
            text = "\n".join([*([message.text] if message.text or not made else []), *map(_call_text, made)])
            yield message.plain().model_copy(update={"content": text})


def _call_text(call: ToolCall) -> str:
    """Return a call exactly as the model wrote it, so that the student may have its tokens in the prefix cache."""
    name, arguments = json.dumps(call.function.name, ensure_ascii=False), call.function.arguments.strip() or "{}"
    return f'{OPEN}\n{{"name": {name}, "arguments": {arguments}}}\n{CLOSE}'
