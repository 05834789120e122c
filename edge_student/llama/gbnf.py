"""Rules of a grammar in GBNF, llama.cpp's notation: those of JSON, and those that are added for a schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MAX_RULES = 5000
MAX_REPETITIONS = 20_000
"""Largest sum of `minItems`, `maxLength` and the like in one schema."""

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
"""Rules by format. A grammar cannot check the length of a month."""


class UnsupportedSchema(ValueError):
    """The schema is invalid, or uses something that a grammar cannot express."""


class GbnfRules:
    """The rules of a grammar under construction. Added rules are named after their numbers."""

    def __init__(self) -> None:
        self.rules = dict(PRIMITIVES)
        self._repetitions = 0

    def add(self, body: str) -> str:
        """Add a rule and return its name. Raises UnsupportedSchema if there are too many."""
        if len(self.rules) > MAX_RULES:
            raise UnsupportedSchema(f"the schema is too large; at most {MAX_RULES} rules are allowed")
        name = f"r{len(self.rules)}"
        self.rules[name] = body
        return name

    def grammar(self, root: str) -> str:
        """Return the whole grammar."""
        return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self.rules.items())])

    def repeat(self, body: str, least: int, most: int | None) -> str:
        """Return a repetition of a body. Raises UnsupportedSchema if all repetitions together are too many."""
        self._repetitions += least if most is None else most
        if self._repetitions > MAX_REPETITIONS:
            raise UnsupportedSchema(f"the sum of minItems, maxLength and the like exceeds {MAX_REPETITIONS}")
        return "" if most == 0 else f"{body}{{{least},{'' if most is None else most}}}"

    def other_string(self, names: Sequence[str]) -> str:
        """Return the rule of a string's content that is none of `names`. It has no escapes, so it cannot spell one of them."""
        plain = r'[^"\\\x00-\x1F]'
        if not names:
            return self.add(f"{plain}*")
        here = sorted({name[0] for name in names if name})
        others = "".join(f"\\U{ord(c):08X}" for c in here)
        ways = [rf'[^"\\\x00-\x1F{others}] {plain}*']
        for c in here:
            rest = self.other_string([name[1:] for name in names if name[:1] == c])
            ways.append(f"[\\U{ord(c):08X}] {rest}")
        if "" not in names:
            ways.append('""')
        return self.add(" | ".join(ways))


def literal(value: Any) -> str:
    """Return a JSON value as a literal of the grammar."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
