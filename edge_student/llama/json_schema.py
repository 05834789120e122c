"""From a JSON schema to a grammar in GBNF, llama.cpp's notation.

What the grammar lets through is valid under the schema; a keyword that a grammar cannot hold is an error, not ignored.
Objects have their properties in the schema's order, as xgrammar on the teacher's side writes them, and no others unless
`additionalProperties` says so. `oneOf` is read as `anyOf`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

MAX_DEPTH = 64
MAX_RULES = 5000
MAX_COUNT = 1000
"""The most that `minItems`, `maxLength` and the like may say: llama.cpp writes repetitions out."""
MAX_WRITTEN = 20_000
"""The most that they may say together."""
MAX_SPAN = 1000
"""Integers between two bounds are listed, so many at most."""

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator"}
    | {"$schema", "$id", "$comment", "$defs", "definitions"}
)
KEYWORDS = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "format"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "exclusiveMinimum"}),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
PRIMITIVES = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    "char": r'[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "natural": "[0] | [1-9] [0-9]*",
    "fraction": r'("." [0-9]+)? ([eE] [-+]? [0-9]+)?',
    "string": r'"\"" char* "\""',
    "integer": '"-"? natural',
    "number": '"-"? natural fraction',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "member": 'string ws ":" ws value',
    "object": '"{" ws (member ws ("," ws member ws)*)? "}"',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [-+] [01] [0-9] ":" [0-5] [0-9])',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
}
FORMATS = {"date": "date", "time": "time", "date-time": 'date "T" time', "uuid": "uuid"}
"""A grammar does not know how long months are."""


class UnsupportedSchema(ValueError):
    """The schema is wrong, or says something that a grammar cannot hold."""


def to_gbnf(schema: Any, root_of: Callable[[str], str] = str) -> str:
    """The grammar of all JSON texts under a schema, or of what `root_of` makes of their rule's name. Raises UnsupportedSchema."""
    grammar = _Grammar(schema)
    root = root_of(grammar.rule_of(schema, "#", 0))
    return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in grammar.rules.items())])


class _Grammar:
    """Rules as they come to be. Every schema has one rule, named after its number."""

    def __init__(self, schema: Any) -> None:
        self.rules = dict(PRIMITIVES)
        self._root = schema
        self._refs: dict[str, str] = {}
        self._written = 0

    def add(self, body: str) -> str:
        if len(self.rules) > MAX_RULES:
            raise UnsupportedSchema("the schema is too large")
        name = f"r{len(self.rules)}"
        self.rules[name] = body
        return name

    def rule_of(self, schema: Any, where: str, depth: int) -> str:
        """Name of the rule of a schema that stands at `where`."""
        if depth > MAX_DEPTH:
            raise UnsupportedSchema(f"{where}: nested too deeply")
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise UnsupportedSchema(f"{where}: a schema is an object")
        said = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        if "$ref" in said:
            _only(said, {"$ref"}, where)
            return self._ref(said["$ref"], where, depth)
        for union in ("anyOf", "oneOf", "allOf"):
            if union in said:
                # A type beside a union says no more than its members do.
                _only(said, {union, "type"}, where)
                members = _list(said[union], f"{where}/{union}")
                if union == "allOf" and len(members) > 1:
                    raise UnsupportedSchema(f"{where}: allOf of several schemas is not supported")
                types = {"type": said["type"]} if "type" in said else {}
                return self.add(
                    " | ".join(
                        self.rule_of(
                            {**types, **one} if isinstance(one, dict) and "$ref" not in one else one,
                            f"{where}/{union}/{at}",
                            depth + 1,
                        )
                        for at, one in enumerate(members)
                    )
                )
        if "const" in said:
            _only(said, {"const", "type"}, where)
            return self.add(_literal(said["const"]))
        if "enum" in said:
            _only(said, {"enum", "type"}, where)
            return self.add(" | ".join(_literal(value) for value in _list(said["enum"], f"{where}/enum")))
        said_type = said.pop("type", None)
        if said_type is None and not said:
            return "value"
        if said_type is None:
            # What is said of one type would be true of all others: one that is spoken of is enough.
            names = [name for name, keywords in KEYWORDS.items() if keywords & said.keys()][:1]
        else:
            names = [said_type] if isinstance(said_type, str) else _list(said_type, f"{where}/type")
        unknown = [name for name in names if not isinstance(name, str) or name not in KEYWORDS]
        if unknown or not names:
            raise UnsupportedSchema(f"{where}: {unknown or [*said]} is not supported")
        _only(said, frozenset().union(*(KEYWORDS[name] for name in names)), where)
        makers: dict[str, Callable[[dict[str, Any], str, int], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
        }
        rules = [
            makers[name]({k: v for k, v in said.items() if k in KEYWORDS[name]}, where, depth)
            if name in makers
            else name
            for name in names
        ]
        return rules[0] if len(rules) == 1 else self.add(" | ".join(rules))

    def _times(self, body: str, least: int, most: int | None) -> str:
        self._written += least if most is None else most
        if self._written > MAX_WRITTEN:
            raise UnsupportedSchema("the schema's minItems, maxLength and the like are too large together")
        return "" if most == 0 else f"{body}{{{least},{'' if most is None else most}}}"

    def _ref(self, ref: Any, where: str, depth: int) -> str:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise UnsupportedSchema(f"{where}: $ref must point into the schema itself")
        if ref not in self._refs:
            target = self._root
            for step in ref.split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, dict) or step not in target:
                    raise UnsupportedSchema(f"{where}: there is nothing at {ref}")
                target = target[step]
            # Its name is there before its body, which may refer to it.
            name = self._refs[ref] = self.add("")
            self.rules[name] = self.rule_of(target, ref, depth + 1)
        return self._refs[ref]

    def _object(self, said: dict[str, Any], where: str, depth: int) -> str:
        properties = said.get("properties", {})
        required = said.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise UnsupportedSchema(f"{where}: properties is an object, required a list")
        if missing := [name for name in required if name not in properties]:
            raise UnsupportedSchema(f"{where}: {missing} is required, but not among the properties")
        more = said.get("additionalProperties", not said)
        if not said:
            return "object"
        members = [
            self.add(f'{_literal(name)} ws ":" ws {self.rule_of(one, f"{where}/properties/{name}", depth + 1)} ws')
            for name, one in properties.items()
        ]
        other = None
        if more is not False:
            value = self.rule_of(more, f"{where}/additionalProperties", depth + 1)
            other = self.add(f'"\\"" {self._other_key(list(properties))} "\\"" ws ":" ws {value} ws')
        # tails[i]: what may come behind some member, of the members from i on.
        tails = [self.add(f'("," ws {other})*' if other else '""')]
        for name, member in zip(reversed(properties), reversed(members), strict=True):
            tails.insert(0, self.add(f'("," ws {member}){"" if name in required else "?"} {tails[0]}'))
        first = []
        for at, (name, member) in enumerate(zip(properties, members, strict=True)):
            first.append(f"{member} {tails[at + 1]}")
            if name in required:
                break
        else:
            first += [f"{other} {tails[-1]}", '""'] if other else ['""']
        return self.add(f'"{{" ws ({" | ".join(first)}) "}}"')

    def _other_key(self, names: Sequence[str]) -> str:
        """A key that is none of `names`. It has no escapes, so that it cannot be one of them in disguise."""
        plain = r'[^"\\\x00-\x1F]'
        if not names:
            return self.add(f"{plain}*")
        here = sorted({name[0] for name in names if name})
        others = "".join(f"\\U{ord(c):08X}" for c in here)
        ways = [rf'[^"\\\x00-\x1F{others}] {plain}*']
        for c in here:
            rest = self._other_key([name[1:] for name in names if name[:1] == c])
            ways.append(f"[\\U{ord(c):08X}] {rest}")
        if "" not in names:
            ways.append('""')
        return self.add(" | ".join(ways))

    def _array(self, said: dict[str, Any], where: str, depth: int) -> str:
        if not said:
            return "array"
        heads = [
            self.rule_of(one, f"{where}/prefixItems/{at}", depth + 1)
            for at, one in enumerate(_list(said["prefixItems"], where) if "prefixItems" in said else [])
        ]
        least, most = _bounds(said, "minItems", "maxItems", where)
        items = said.get("items", not heads)
        left, right = max(0, least - len(heads)), None if most is None else most - len(heads)
        if (right is not None and right < 0) or (items is False and left):
            raise UnsupportedSchema(f"{where}: as many items as minItems and maxItems say cannot be written")
        parts = [' "," ws '.join(f"{head} ws" for head in heads)]
        if items is not False:
            item = self.rule_of(items, f"{where}/items", depth + 1)
            more = f'("," ws {item} ws)'
            if heads:
                parts.append(self._times(more, left, right))
            elif right != 0:
                first = f"{item} ws {self._times(more, max(0, left - 1), None if right is None else right - 1)}"
                parts.append(first if left else f"({first})?")
        return self.add(f'"[" ws {" ".join(parts)} "]"')

    def _string(self, said: dict[str, Any], where: str, depth: int) -> str:
        if not said:
            return "string"
        if "format" in said:
            _only(said, {"format"}, where)
            if said["format"] not in FORMATS:
                raise UnsupportedSchema(f"{where}: the format {said['format']!r} is not supported")
            return self.add(rf'"\"" {FORMATS[said["format"]]} "\""')
        least, most = _bounds(said, "minLength", "maxLength", where)
        # A character beyond the 16-bit ones may be written as two escapes, so escapes of halves are left out here.
        char = r'([^"\\\x00-\x1F] | "\\" ["\\/bfnrt])'
        return self.add(rf'"\"" {self._times(char, least, most)} "\""')

    def _integer(self, said: dict[str, Any], where: str, depth: int) -> str:
        if not said:
            return "integer"
        for value in said.values():
            if not isinstance(value, int) or isinstance(value, bool):
                raise UnsupportedSchema(f"{where}: an integer's bounds are integers")
        low = max((said[k] + more for k, more in (("minimum", 0), ("exclusiveMinimum", 1)) if k in said), default=None)
        high = min((said[k] - less for k, less in (("maximum", 0), ("exclusiveMaximum", 1)) if k in said), default=None)
        if high is None and low in {0, 1}:
            return "natural" if low == 0 else self.add("[1-9] [0-9]*")
        if low is None or high is None or not 0 <= high - low < MAX_SPAN:
            raise UnsupportedSchema(
                f"{where}: bounds are supported from 0 or 1 on, or with up to {MAX_SPAN} integers between"
            )
        return self.add(" | ".join(f'"{value}"' for value in range(low, high + 1)))

    def _number(self, said: dict[str, Any], where: str, depth: int) -> str:
        if not said:
            return "number"
        if said != {"minimum": 0}:
            raise UnsupportedSchema(f"{where}: of a number's bounds only minimum 0 is supported")
        return self.add("natural fraction")


def _literal(value: Any) -> str:
    """A JSON value as a grammar's literal."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _only(said: dict[str, Any], supported: frozenset[str] | set[str], where: str) -> None:
    if unknown := sorted(said.keys() - supported):
        raise UnsupportedSchema(f"{where}: {', '.join(unknown)} is not supported here")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UnsupportedSchema(f"{where}: a list with something in it is expected")
    return value


def _bounds(said: dict[str, Any], least: str, most: str, where: str) -> tuple[int, int | None]:
    low, high = said.get(least, 0), said.get(most)
    for value in (low, high):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT):
            raise UnsupportedSchema(f"{where}: {least} and {most} are integers from 0 to {MAX_COUNT}")
    if high is not None and high < low:
        raise UnsupportedSchema(f"{where}: {most} is less than {least}")
    return low, high
