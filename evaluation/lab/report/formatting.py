"""Figures as text, alike in the page, in Markdown and on the terminal. Unknown figures are a dash."""

from __future__ import annotations

import re

from evaluation.lab.analysis.statistics import Interval

UNKNOWN = "–"
_SPACE = "\N{NO-BREAK SPACE}"
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def percent(value: float | None) -> str:
    """Return a share in percent, with one decimal."""
    return UNKNOWN if value is None else f"{_sane(100 * value, 1)}{_SPACE}%"


def percent_in(value: float | None, interval: Interval | None) -> str:
    """Return a share with its interval."""
    if value is None or interval is None:
        return percent(value)
    return f"{percent(value)} [{_sane(100 * interval.low, 1)},{_SPACE}{_sane(100 * interval.high, 1)}]"


def points_in(value: float | None, interval: Interval | None) -> str:
    """Return a difference of shares in percentage points, signed, with its interval."""
    if value is None:
        return UNKNOWN
    points = f"{_sane(100 * value, 1, sign=True)}{_SPACE}pp"
    if interval is None:
        return points
    low, high = (_sane(100 * bound, 1, sign=True) for bound in interval)
    return f"{points} [{low},{_SPACE}{high}]"


def number(value: float | None, digits: int = 0) -> str:
    return UNKNOWN if value is None else _sane(value, digits)


def usd_per_thousand(value: float | None) -> str:
    """Return dollars per question as those of a thousand questions."""
    return UNKNOWN if value is None else f"${1000 * value:,.4g}"


def seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{_sane(value, 2)}{_SPACE}s"


def p_value(p: float) -> str:
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def shown(text: str) -> str:
    """Return text on one line, without characters that control a terminal or turn the reading direction."""
    return "".join(character if character.isprintable() else " " for character in text)


def shortened(text: str, chars: int) -> str:
    """Return the beginning of a text, on one line."""
    text = " ".join(shown(text).split())
    return text if len(text) <= chars else text[: chars - 1].rstrip() + "…"


def markdown_text(text: str) -> str:
    """Return text on one line that Markdown and HTML leave as it is."""
    return _MARKUP.sub(r"\\\1", shown(text)).replace("\\<", "&lt;").replace("\\&", "&amp;")


def _sane(value: float, digits: int, *, sign: bool = False) -> str:
    """Round without a negative zero."""
    value = round(value, digits) + 0.0
    return f"{value:{'+' if sign and value else ''},.{digits}f}"
