"""A grammar allows exactly the texts that are valid under its JSON schema, on a real vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import llama_cpp
import pytest

from edge_student.llama.gbnf import UnsupportedSchema
from edge_student.llama.grammar import BadGrammar, Grammar, GrammarGate
from edge_student.llama.json_schema import to_gbnf
from edge_student.llama.vocab import Vocab
from shared.model_hub.local_models import ensure_gguf

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None},
        "mood": {"enum": ["good", "bad", 3, None]},
        "boss": {"$ref": "#"},
    },
    "required": ["name", "mood"],
}
OPEN = {"type": "object", "properties": {"a": {"type": "null"}, "ab": {"type": "null"}}, "additionalProperties": True}
MAP = {"type": "object", "additionalProperties": {"type": "integer"}}
LIST = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3}
PAIR = {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "null"}, "maxItems": 3}
CHOICE = {"oneOf": [{"$ref": "#/$defs/a"}, {"type": ["boolean", "null"]}], "$defs": {"a": {"const": {"é": ['\n"x']}}}}

VALID: list[tuple[Any, str]] = [
    (PERSON, '{"name":"Bo","mood":"good"}'),
    (PERSON, '{ "name": "Bo", "age": 12,\n  "mood": 3 }'),
    (PERSON, '{"name":"日本","age":null,"mood":null,"boss":{"name":"x","mood":"bad"}}'),
    (PERSON, '{"name":"\\"\\n","mood":"bad"}'),
    (OPEN, "{}"),
    (OPEN, '{"a":null,"ab":null,"abc":[1,{"x":"y"}],"":true,"b":-1.5e+3}'),
    (OPEN, '{"z":1}'),
    (MAP, '{"a":1,"b":-20}'),
    (LIST, "[1]"),
    (LIST, "[0, -1.5, 2e10]"),
    (PAIR, '["x", 1]'),
    (PAIR, '["x",1,null]'),
    (CHOICE, '{"é":["\\n\\"x"]}'),
    (CHOICE, "true"),
    ({}, '[{"a":"\\u00e9"},[],{},"",0]'),
    (True, "null"),
    ({"type": "object"}, '{"any":{"thing":[1]}}'),
    ({"type": "array"}, "[]"),
    ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, "[]"),
    ({"type": "object", "additionalProperties": False}, "{}"),
    ({"type": "integer", "minimum": -1, "exclusiveMaximum": 12}, "11"),
    ({"type": "integer", "exclusiveMinimum": 0}, "10"),
    ({"type": "number", "minimum": 0}, "0.5"),
    ({"type": "string", "format": "date-time"}, '"2026-11-30T23:59:59Z"'),
    ({"type": "string", "format": "uuid"}, '"123e4567-e89b-12d3-a456-426614174000"'),
    ({"type": "string", "maxLength": 0}, '""'),
    ({"allOf": [{"type": "boolean"}], "title": "x"}, "false"),
]
INVALID: list[tuple[Any, str]] = [
    (PERSON, '{"name":"","mood":"good"}'),
    (PERSON, '{"name":"abcdef","mood":"good"}'),
    (PERSON, '{"mood":"good","name":"x"}'),
    (PERSON, '{"name":"x"}'),
    (PERSON, '{"name":"x","mood":"good","more":1}'),
    (PERSON, '{"name":"x","age":-1,"mood":"good"}'),
    (PERSON, '{"name":"x\ny","mood":"good"}'),
    (PERSON, '{"name":"x","mood":"good",}'),
    (PERSON, 'Here: {"name":"x","mood":"good"}'),
    (OPEN, '{"ab":null,"a":null}'),
    (OPEN, '{"\\u0061":1}'),
    (MAP, '{"a":"1"}'),
    (MAP, '{"a":01}'),
    (LIST, "[]"),
    (LIST, "[1,2,3,4]"),
    (LIST, "[1.]"),
    (PAIR, '["x"]'),
    (PAIR, '["x",1,null,null]'),
    (CHOICE, '{"é":[]}'),
    ({"type": "integer", "minimum": -1, "exclusiveMaximum": 12}, "12"),
    ({"type": "integer", "exclusiveMinimum": 0}, "0"),
    ({"type": "number", "minimum": 0}, "-1"),
    ({"type": "string", "format": "date"}, '"2026-13-01"'),
    ({"type": "object"}, "[]"),
    ({"type": "object"}, "<|im_start|>"),
    ({}, '"a\\x"'),
    ({}, '"\x00"'),
]
UNSUPPORTED: list[Any] = [
    {"type": "string", "pattern": "^a+$"},
    {"type": "integer", "multipleOf": 3},
    {"type": "integer", "minimum": 7},
    {"type": "integer", "minimum": 0.5, "maximum": 3},
    {"type": "number", "maximum": 3},
    {"type": "array", "uniqueItems": True},
    {"type": "array", "minItems": 3, "maxItems": 2},
    {"type": "array", "minItems": -1},
    {"type": "array", "maxItems": 10**9},
    {"type": "object", "required": ["a"]},
    {"type": "object", "properties": {"a": False}},
    {"type": "object", "properties": [1]},
    {"type": "frog"},
    {"type": []},
    {"type": {"a": 1}},
    {"type": "string", "format": "frog"},
    {"enum": []},
    {"not": {}},
    {"anyOf": [{"type": "null"}], "properties": {}},
    {"allOf": [{"type": "object"}, {"type": "object"}]},
    {"$ref": "https://example.com/schema"},
    {"$ref": "#/nowhere"},
    {"$ref": ["#"]},
    False,
    None,
    [],
]


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def vocab(request: pytest.FixtureRequest) -> Iterator[Vocab]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(ensure_gguf(request.param)).encode(), params)
    yield Vocab(llama_cpp.llama_model_get_vocab(model))
    llama_cpp.llama_model_free(model)


def is_valid(vocab: Vocab, schema: Any, text: str) -> bool:
    """Check that the text is accepted by tokens, as the student does it, and by characters, as the gate does it."""
    grammar, gate = Grammar(vocab, to_gbnf(schema)), GrammarGate(vocab, to_gbnf(schema))
    by_token = all(grammar.accept(token) for token in vocab.tokenize_continuation(text)) and grammar.complete
    by_character = gate.push(text) == text and gate.complete
    assert by_token == by_character
    return by_token


@pytest.mark.parametrize(("schema", "text"), VALID)
@pytest.mark.engine
def test_valid_texts_may_be_written(vocab: Vocab, schema: Any, text: str) -> None:
    json.loads(text)
    assert is_valid(vocab, schema, text)


@pytest.mark.parametrize(("schema", "text"), INVALID)
@pytest.mark.engine
def test_others_may_not(vocab: Vocab, schema: Any, text: str) -> None:
    assert not is_valid(vocab, schema, text)


@pytest.mark.parametrize("schema", UNSUPPORTED, ids=str)
def test_what_a_grammar_cannot_hold_is_an_error(schema: Any) -> None:
    with pytest.raises(UnsupportedSchema):
        to_gbnf(schema)


@pytest.mark.engine
def test_schemas_without_end(vocab: Vocab) -> None:
    deep: Any = {"type": "null"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    wide = {"enum": list(range(20_000))}
    with pytest.raises(UnsupportedSchema):
        to_gbnf(deep)
    with pytest.raises(UnsupportedSchema):
        to_gbnf({"properties": {str(n): {"type": "string", "maxLength": 2} for n in range(5000)}})
    with pytest.raises(UnsupportedSchema):
        to_gbnf({"properties": {str(n): {"type": "string", "maxLength": 1000} for n in range(100)}})
    assert is_valid(vocab, wide, "19999")
    with pytest.raises(BadGrammar):
        Grammar(vocab, to_gbnf({"$ref": "#"}))
    with pytest.raises(BadGrammar):
        Grammar(vocab, to_gbnf({"anyOf": [{"type": "null"}, {"$ref": "#"}]}))


@pytest.mark.engine
def test_the_gate_ends_at_the_first_character_that_is_not_allowed(vocab: Vocab) -> None:
    gate = GrammarGate(vocab, to_gbnf(PERSON))
    assert gate.push('{"name":"J') == '{"name":"J'
    assert not gate.complete
    assert gate.push('o","years":3}') == 'o","'
    assert gate.push("mood") == "", "nothing comes through any more"
    assert not gate.complete


@pytest.mark.engine
def test_a_grammar_survives_whatever_it_is_given(vocab: Vocab) -> None:
    """llama.cpp ends the process if a grammar accepts a token that it does not allow."""
    grammar = Grammar(vocab, to_gbnf({"type": "array"}))
    for token in range(vocab.n_tokens):
        if vocab.piece(token)[:1] not in {b"[", b" ", b"\n"}:
            assert not grammar.accept(token)
    assert not grammar.accept(vocab.end_token)
    for token in vocab.control_tokens.values():
        assert not grammar.accept(token)
    assert all(grammar.accept(token) for token in vocab.tokenize('["'))
    for token in vocab.control_tokens.values():
        assert not grammar.accept(token), "inside a string too: its name would not be in the text"
    half, rest = vocab.tokenize("é")[0], vocab.tokenize('"]')
    if len(vocab.piece(half)) == 1:
        assert grammar.accept(half)
        assert not grammar.accept(rest[0]), "inside a character"
