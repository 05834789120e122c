"""The grammar of an answer that may call tools: one call or more in their markup, or text that does not begin with it."""

from __future__ import annotations

from typing import Any

from edge_student.llama.json_schema import to_gbnf
from edge_student.tool_calls import CLOSE, OPEN


def text_or_calls(call_schema: Any, *, parallel: bool) -> str:
    """In GBNF. Calls are JSON under the schema, one behind the other where they are `parallel`. Raises UnsupportedSchema."""
    more = r' ("\n" marked)*' if parallel else ""

    def root_of(call: str) -> str:
        return "\n".join(
            [
                "calls | text0",
                f"calls ::= marked{more}",
                f'marked ::= "{OPEN}\\n" {call} "\\n{CLOSE}"',
                *(f"text{at} ::= {body}" for at, body in enumerate(_text_rules())),
            ]
        )

    return to_gbnf(call_schema, root_of)


def _text_rules() -> list[str]:
    """What may come behind so many characters of the markup that opens a call: the end, or anything that is not all of it."""
    rules = []
    for at, character in enumerate(OPEN):
        goes_on = f' | "{character}" text{at + 1}' if at + 1 < len(OPEN) else ""
        rules.append(f"| [^{character}] .*{goes_on}")
    return rules
