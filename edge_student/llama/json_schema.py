"""Translates a JSON schema into a grammar in GBNF, llama.cpp's notation.

Every text of the grammar is valid under the schema. A keyword that a grammar cannot express is an error; it is not ignored.
Objects have their properties in the schema's order, as xgrammar writes them on the teacher's side, and no others unless
`additionalProperties` allows them. `oneOf` means `anyOf`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_student.llama.gbnf import FORMATS, PRIMITIVES, GbnfRules, UnsupportedSchema, literal

MAX_DEPTH = 64
MAX_COUNT = 1000
"""Largest value of `minItems`, `maxLength` and the like: llama.cpp writes repetitions out."""
MAX_SPAN = 1000
"""Most integers between two bounds: the grammar lists them."""

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


def to_gbnf(schema: Any, root_of: Callable[[str], str] = str) -> str:
    """Return the grammar of all JSON texts under a schema. `root_of` turns the name of their rule into another root.

    Raises UnsupportedSchema.
    """
    rules = _SchemaRules(schema)
    return rules.grammar(root_of(rules.rule_of(schema, "#", 0)))


class _SchemaRules(GbnfRules):
    """The rules of a schema and of its parts."""

    def __init__(self, schema: Any) -> None:
        super().__init__()
        self._root = schema
        self._refs: dict[str, str] = {}

    def rule_of(self, schema: Any, where: str, depth: int) -> str:
        """Return the name of the rule of the schema at `where`."""
        if depth > MAX_DEPTH:
            raise UnsupportedSchema(f"{where}: the schema is nested too deeply; at most {MAX_DEPTH} levels are allowed")
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise UnsupportedSchema(f"{where}: a schema must be an object or true, not {schema!r:.40}")
        keywords = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        if "$ref" in keywords:
            _only(keywords, {"$ref"}, where)
            return self._ref(keywords["$ref"], where, depth)
        for union in ("anyOf", "oneOf", "allOf"):
            if union in keywords:
                return self._union(union, keywords, where, depth)
        if "const" in keywords:
            _only(keywords, {"const", "type"}, where)
            return self.add(literal(keywords["const"]))
        if "enum" in keywords:
            _only(keywords, {"enum", "type"}, where)
            return self.add(" | ".join(literal(value) for value in _list(keywords["enum"], f"{where}/enum")))
        type_keyword = keywords.pop("type", None)
        if type_keyword is None and not keywords:
            return "value"
        if type_keyword is None:
            # Keywords of one type allow all values of the other types. The grammar allows values of that type only.
            names = [name for name, accepted in KEYWORDS.items() if accepted & keywords.keys()][:1]
        else:
            names = [type_keyword] if isinstance(type_keyword, str) else _list(type_keyword, f"{where}/type")
        unknown = [name for name in names if not isinstance(name, str) or name not in KEYWORDS]
        if unknown or not names:
            raise UnsupportedSchema(f"{where}: unsupported type or keyword: {unknown or [*keywords]}")
        _only(keywords, frozenset().union(*(KEYWORDS[name] for name in names)), where)
        rules = [
            self._typed(name, {k: v for k, v in keywords.items() if k in KEYWORDS[name]}, where, depth)
            for name in names
        ]
        return rules[0] if len(rules) == 1 else self.add(" | ".join(rules))

    def _union(self, union: str, keywords: dict[str, Any], where: str, depth: int) -> str:
        # A type beside a union applies to each of its members.
        _only(keywords, {union, "type"}, where)
        members = _list(keywords[union], f"{where}/{union}")
        if union == "allOf" and len(members) > 1:
            raise UnsupportedSchema(f"{where}: allOf of {len(members)} schemas is not supported; only one is accepted")
        types = {"type": keywords["type"]} if "type" in keywords else {}
        rules = []
        for at, one in enumerate(members):
            member = {**types, **one} if isinstance(one, dict) and "$ref" not in one else one
            rules.append(self.rule_of(member, f"{where}/{union}/{at}", depth + 1))
        return self.add(" | ".join(rules))

    def _typed(self, name: str, keywords: dict[str, Any], where: str, depth: int) -> str:
        """Return the name of the rule of one type."""
        match name:
            case "object":
                return self._object(keywords, where, depth)
            case "array":
                return self._array(keywords, where, depth)
            case "string":
                body = self._string_rule(keywords, where)
            case "integer":
                body = _integer_rule(keywords, where)
            case "number":
                body = _number_rule(keywords, where)
            case _:
                return name
        return body if body in PRIMITIVES else self.add(body)

    def _ref(self, ref: Any, where: str, depth: int) -> str:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise UnsupportedSchema(f"{where}: $ref {ref!r:.80} does not point into the schema itself (#/...)")
        if ref not in self._refs:
            target = _resolve(self._root, ref, where)
            # The name is registered before the body is built, because the body may refer to it.
            name = self._refs[ref] = self.add("")
            self.rules[name] = self.rule_of(target, ref, depth + 1)
        return self._refs[ref]

    def _object(self, keywords: dict[str, Any], where: str, depth: int) -> str:
        properties = keywords.get("properties", {})
        required = keywords.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise UnsupportedSchema(f"{where}: properties must be an object, and required a list")
        if missing := [name for name in required if name not in properties]:
            raise UnsupportedSchema(f"{where}: required properties {missing} are not among the properties")
        more = keywords.get("additionalProperties", not keywords)
        if not keywords:
            return "object"
        members = [
            self.add(f'{literal(name)} ws ":" ws {self.rule_of(one, f"{where}/properties/{name}", depth + 1)} ws')
            for name, one in properties.items()
        ]
        other = None
        if more is not False:
            value = self.rule_of(more, f"{where}/additionalProperties", depth + 1)
            other = self.add(f'"\\"" {self.other_string(list(properties))} "\\"" ws ":" ws {value} ws')
        # tails[i] is the rule for what follows a member, out of the members from i on.
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

    def _array(self, keywords: dict[str, Any], where: str, depth: int) -> str:
        if not keywords:
            return "array"
        heads = [
            self.rule_of(one, f"{where}/prefixItems/{at}", depth + 1)
            for at, one in enumerate(_list(keywords["prefixItems"], where) if "prefixItems" in keywords else [])
        ]
        least, most = _bounds(keywords, "minItems", "maxItems", where)
        items = keywords.get("items", not heads)
        left, right = max(0, least - len(heads)), None if most is None else most - len(heads)
        if (right is not None and right < 0) or (items is False and left):
            raise UnsupportedSchema(f"{where}: minItems and maxItems contradict prefixItems or items")
        parts = [' "," ws '.join(f"{head} ws" for head in heads)]
        if items is not False:
            item = self.rule_of(items, f"{where}/items", depth + 1)
            more = f'("," ws {item} ws)'
            if heads:
                parts.append(self.repeat(more, left, right))
            elif right != 0:
                first = f"{item} ws {self.repeat(more, max(0, left - 1), None if right is None else right - 1)}"
                parts.append(first if left else f"({first})?")
        return self.add(f'"[" ws {" ".join(parts)} "]"')

    def _string_rule(self, keywords: dict[str, Any], where: str) -> str:
        """Return a primitive's name or the body of a rule."""
        if not keywords:
            return "string"
        if "format" in keywords:
            _only(keywords, {"format"}, where)
            if keywords["format"] not in FORMATS:
                raise UnsupportedSchema(
                    f"{where}: the format {keywords['format']!r:.40} is not supported; accepted: {', '.join(FORMATS)}"
                )
            return rf'"\"" {FORMATS[keywords["format"]]} "\""'
        least, most = _bounds(keywords, "minLength", "maxLength", where)
        # JSON may write a character beyond 16 bits as two escapes, which would count twice. So escapes by number are left out.
        char = r'([^"\\\x00-\x1F] | "\\" ["\\/bfnrt])'
        return rf'"\"" {self.repeat(char, least, most)} "\""'


def _resolve(root: Any, ref: str, where: str) -> Any:
    """Return the part of a schema that a reference points to."""
    target = root
    for step in ref.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or step not in target:
            raise UnsupportedSchema(f"{where}: $ref {ref} points to nothing")
        target = target[step]
    return target


def _integer_rule(keywords: dict[str, Any], where: str) -> str:
    """Return a primitive's name or the body of a rule."""
    if not keywords:
        return "integer"
    for value in keywords.values():
        if not isinstance(value, int) or isinstance(value, bool):
            raise UnsupportedSchema(f"{where}: bounds of an integer must be integers, not {value!r:.40}")
    lows = [keywords[key] + more for key, more in (("minimum", 0), ("exclusiveMinimum", 1)) if key in keywords]
    highs = [keywords[key] - less for key, less in (("maximum", 0), ("exclusiveMaximum", 1)) if key in keywords]
    low, high = max(lows, default=None), min(highs, default=None)
    if high is None and low in {0, 1}:
        return "natural" if low == 0 else "[1-9] [0-9]*"
    if low is None or high is None or not 0 <= high - low < MAX_SPAN:
        raise UnsupportedSchema(
            f"{where}: unsupported bounds of an integer; accepted are a minimum of 0 or 1 alone, or two bounds with at most "
            f"{MAX_SPAN} integers from one to the other"
        )
    return " | ".join(f'"{value}"' for value in range(low, high + 1))


def _number_rule(keywords: dict[str, Any], where: str) -> str:
    """Return a primitive's name or the body of a rule."""
    if not keywords:
        return "number"
    if keywords != {"minimum": 0}:
        raise UnsupportedSchema(f"{where}: unsupported bounds of a number; only minimum 0 is accepted")
    return "natural fraction"


def _only(keywords: dict[str, Any], supported: frozenset[str] | set[str], where: str) -> None:
    if unknown := sorted(keywords.keys() - supported):
        raise UnsupportedSchema(f"{where}: unsupported keywords: {', '.join(unknown)}")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UnsupportedSchema(f"{where}: must be a non-empty list")
    return value


def _bounds(keywords: dict[str, Any], least: str, most: str, where: str) -> tuple[int, int | None]:
    low, high = keywords.get(least, 0), keywords.get(most)
    for value in (low, high):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT):
            raise UnsupportedSchema(
                f"{where}: {least} and {most} must be integers from 0 to {MAX_COUNT}, not {value!r:.40}"
            )
    if high is not None and high < low:
        raise UnsupportedSchema(f"{where}: {most} {high} is less than {least} {low}")
    return low, high
