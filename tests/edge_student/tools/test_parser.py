"""The parser finds the calls in an answer's text, for any cut of it into pieces."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_student.tools.parser import CallArguments, CallStarted, ParserEvent, PlainText, ToolCallParser

NAMES = ["weather", "count-2"]
CITY = '{"city": "Oslo </tool_call> \\"}{[ <tool_call>", "days": [1, {"a": null}]}'


def marked(name: str, arguments_json: str, blank: str = "\n") -> str:
    return f'<tool_call>{blank}{{"name":{blank}"{name}"{blank},"arguments":{arguments_json}{blank}}}{blank}</tool_call>'


names = st.sampled_from(NAMES)
scalars = st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["</tool_call>", "<tool_call>", "\\", '"}'])
arguments = st.dictionaries(
    st.text(max_size=4), st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5), max_size=3
)
blanks = st.sampled_from(["", " ", "\n", "\n  "])
PARTS = ["<tool_call>", "</tool_call>", "<tool", "_call>", "<", "\n", " ", "{", "}", '"', "\\", "{}", "words"]
FENCED = '```json\n{\n  "name": "weather",\n  "arguments": {"city": "Oslo"}\n}\n```'
CALLS = [marked("weather", CITY), FENCED, "```json", "```", "``", '{"name": "weather"', ', "arguments": ', '{"a": "}"}']
fragments = st.sampled_from(PARTS + CALLS)


def read(pieces: list[str], *, whole: bool = False) -> tuple[str, list[tuple[str, str]], bool]:
    """Return the text of an answer, its calls, and whether they are complete. Ids are new, indices count up."""
    count = itertools.count()
    parser = ToolCallParser(NAMES, whole=whole, call_id=lambda: f"id{next(count)}")
    events: list[ParserEvent] = [event for piece in pieces for event in parser.push(piece)] + parser.finish()
    text = ""
    calls: list[tuple[str, str]] = []
    for event in events:
        match event:
            case PlainText(more):
                assert more, "an event says something"
                text += more
            case CallStarted(index, identity, name):
                assert (index, identity) == (len(calls), f"id{len(calls)}")
                calls.append((name, ""))
            case CallArguments(index, more):
                assert index == len(calls) - 1 and more
                calls[-1] = (calls[-1][0], calls[-1][1] + more)
    return text, calls, parser.called


def cut(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


@given(st.lists(st.tuples(names, arguments, blanks), min_size=1, max_size=3), st.data())
def test_calls_are_read_and_no_markup_is_shown(made: list[tuple[str, object, str]], data: st.DataObject) -> None:
    calls = [(name, json.dumps(value)) for name, value, _ in made]
    text = "\n".join(marked(name, one, blank) for (name, one), (_, _, blank) in zip(calls, made, strict=True))
    assert read(cut(text, data)) == ("", calls, True)
    for words in ("Let me see.\n", "A <tool_call> is how"):
        assert read(cut(words + text, data)) == (words, calls, True), "behind text too"


@given(names, arguments, blanks, st.data())
def test_an_answer_that_is_a_call(name: str, value: object, blank: str, data: st.DataObject) -> None:
    arguments_json = json.dumps(value)
    text = f'{blank}{{{blank}"name":"{name}",{blank}"arguments":{blank}{arguments_json}{blank}}}'
    assert read(cut(text, data), whole=True) == ("", [(name, arguments_json)], True)


@given(st.lists(fragments, max_size=8).map("".join), st.booleans(), st.data())
def test_how_a_text_is_cut_makes_no_difference(text: str, whole: bool, data: st.DataObject) -> None:
    assert read(cut(text, data), whole=whole) == read([text], whole=whole) == read(list(text), whole=whole)


@given(st.lists(fragments | st.text(max_size=5), max_size=8).map("".join))
def test_text_without_calls_is_left_as_it_is(text: str) -> None:
    shown, calls, called = read([text])
    if not calls and not text.startswith("<tool_call>"):
        assert shown == text
        assert not called


@pytest.mark.parametrize(
    "call",
    [
        marked("unknown", "{}"),
        marked("weather", "[]"),
        marked("weather", "{'a': 1}"),
        marked("weather", "{}, more"),
        '<tool_call>\n{"arguments": {}, "name": "weather"}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {}}\n<tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"a": 1',
        "<tool_call>weather</tool_call>",
    ],
)
def test_what_is_no_call_stays_text_behind_text(call: str) -> None:
    assert read([f"Look: {call}"]) == (f"Look: {call}", [], False)
    assert read(list(f"Look: {call} {marked('weather', '{}')}")) == (
        (f"Look: {call} ", [("weather", "{}")], True)
        if call.endswith(">")
        else (f"Look: {call} {marked('weather', '{}')}", [], False)
    )


@given(st.data())
def test_a_call_in_a_fence_of_markdown_or_in_none_is_one(data: st.DataObject) -> None:
    """Qwen2.5-Coder writes calls like this."""
    bare = FENCED[8:-4]
    assert read(cut(f"{bare}\n{bare}", data)) == ("", [("weather", '{"city": "Oslo"}')] * 2, True)
    for text in (f"Sure: {bare}", bare.replace('"name"', '"title"'), bare.replace("weather", "unknown"), bare[:-2]):
        assert read(cut(text, data)) == (text, [], False), "only where an answer begins with it, and it is one"
    call = ("weather", '{"city": "Oslo"}')
    assert read(cut(FENCED, data)) == ("", [call], True)
    assert read(cut(f"Sure:\n{FENCED}\n{FENCED} Done.", data)) == ("Sure:\n Done.", [call, call], True)
    other = FENCED.replace('"name"', '"title"')
    assert read(cut(f"Sure:\n{other}\n", data)) == (f"Sure:\n{other}\n", [], False)


def test_text_is_shown_as_soon_as_it_can_be_no_call() -> None:
    parser = ToolCallParser(NAMES)
    assert parser.push("<tool") == []
    assert parser.push("s> and <") == [PlainText("<tools> and ")]
    assert parser.push("tool_call> ") == []
    assert parser.push("is a tag") == [PlainText("<tool_call>"), PlainText(" is a tag")]


def test_arguments_are_told_as_they_come() -> None:
    parser = ToolCallParser(NAMES, call_id=lambda: "c")
    assert parser.push('<tool_call>\n{"name": "wea') == []
    assert parser.push('ther"') == [CallStarted(0, "c", "weather")]
    assert parser.push(', "arguments": ') == []
    assert parser.push('{"city": "Os') == [CallArguments(0, '{"city": "Os')]
    assert parser.push('lo"} ') == [CallArguments(0, 'lo"}')]
    assert not parser.called
    assert parser.push("}\n</tool_call>") == []
    assert parser.called
    assert parser.finish() == []


@pytest.mark.parametrize("end", range(len(marked("weather", '{"a": 1}')) + 1))
def test_a_call_that_is_cut_is_shown_as_far_as_it_came(end: int) -> None:
    call = marked("weather", '{"a": 1}')
    text, calls, called = read([call[:end]])
    assert called == (end == len(call))
    if end >= len("<tool_call>"):
        assert text == "", "no markup is shown"
    for name, arguments_json in calls:
        assert name == "weather"
        assert '{"a": 1}'.startswith(arguments_json)
