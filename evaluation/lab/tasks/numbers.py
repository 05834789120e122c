r"""The number in `The answer is 1,234.` or `\boxed{1234}`, exactly."""

from __future__ import annotations

import re
from decimal import Context, Decimal, InvalidOperation

_SAYS = re.compile(r"\bthe answer is\b:?|\\boxed\{", re.IGNORECASE)
ASKED = "Please reason step by step, and put your final answer within \\boxed{}."
"""What stands behind a question without worked examples: the words that Qwen's maths models are asked with."""
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
"""A longer number is none: nobody asked for it."""


def answer(output: str) -> str | None:
    r"""The number of the last `The answer is N` or `\boxed{N}`, in canonical form; None where there is no plain number.

    Takes thousands' commas, currency signs, bold type, a unit behind and a full stop. It never guesses: the last such
    statement counts, and if that holds a term instead of a number there is no answer.
    """
    said = _NUMBER.match(last_statement(output).replace("**", "").replace("\\$", "").replace("$", "").strip())
    return canonical(said["sign"].replace("−", "-") + said["digits"]) if said else None


def last_statement(output: str) -> str:
    r"""The rest of the line behind the last `The answer is`, or what is in the last `\boxed{}`; empty where nobody says so."""
    output = output.replace("{,}", ",")  # how LaTeX sets thousands
    said = list(_SAYS.finditer(output))
    if not said:
        return ""
    last = said[-1]
    line = output[last.end() :].strip(" \t").partition("\n")[0]
    return line.partition("}")[0] if last[0].endswith("{") else line


def canonical(number: str) -> str | None:
    """`1,200.50` as `1200.5`; equal numbers have equal texts. None for what is no number."""
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
