r"""The number in `The answer is 1,234.` or `\boxed{1234}`, exactly."""

from __future__ import annotations

import re
from decimal import Context, Decimal, InvalidOperation

_SAYS = re.compile(r"\bthe answer is\b:?|\\boxed\{", re.IGNORECASE)
ANSWER_FORMAT = "Please reason step by step, and put your final answer within \\boxed{}."
"""Text after a question without worked examples: the words that Qwen's maths models are asked with."""
_NUMBER = re.compile(
    r"""
    [$€£]?[ ]?(?P<sign>[-−+]?)[ ]?[$€£]?
    (?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
    (?!\d|[.,]\d|[eE][-+]?\d)        # not the beginning of something longer
    (?!\s*[-−+*/×^=÷:][ ]?[$€£(]?\d)  # nor of a term, a fraction, a ratio or a range
    (?!\s*[x][ ]?\d)
    (?!\s*\\(?!(?:text|mathrm|quad|circ)\b|[%,;:!\ )\]$]))  # nor of a term in LaTeX, as 2\frac{1}{2}
    """,
    re.VERBOSE,
)
MAX_DIGITS = 100
"""A longer number is no answer."""


def answer(output: str) -> str | None:
    r"""Return the number of the last `The answer is N` or `\boxed{N}`, in canonical form; None if there is no plain number.

    Takes thousands' commas, currency signs, bold type, a unit behind and a full stop. It never guesses: the last such
    statement counts, and if that holds a term instead of a number there is no answer.
    """
    found = _NUMBER.match(last_statement(output).replace("**", "").replace("\\$", "").replace("$", "").strip())
    return canonical(found["sign"].replace("−", "-") + found["digits"]) if found else None


def last_statement(output: str) -> str:
    r"""Return the rest of the line after the last `The answer is`, or the content of the last `\boxed{}`; empty without one."""
    output = output.replace("{,}", ",")  # LaTeX's comma in thousands
    found = list(_SAYS.finditer(output))
    if not found:
        return ""
    last = found[-1]
    line = output[last.end() :].strip(" \t").partition("\n")[0]
    return line.partition("}")[0] if last[0].endswith("{") else line


def canonical(number: str) -> str | None:
    """Return `1,200.50` as `1200.5`, so that equal numbers have equal texts; None for a text that is not a number."""
    text = number.strip().replace(",", "")
    if len(text) > MAX_DIGITS:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    if not value.is_finite():
        return None
    if not value:
        return "0"
    text = format(value.normalize(Context(prec=MAX_DIGITS)), "f")
    return text if len(text) <= MAX_DIGITS else None
