from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt.terminal.sanitize import Plain, plain

PIECES = st.lists(st.text(st.sampled_from("\x1b\x9b[]0;31mKA é\n\t\r\x07\x00\\")), max_size=8)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jgone?", "gone?"),
        ("\x1b]0;title\x07text", "]0;titletext"),
        ("a\r\nb\tc\x00\x7f\x85", "a\nb\tc"),
        ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
        ("\x1b\x1b[0m[31m", "[31m"),
    ],
)
def test_text_stays_and_what_steers_a_terminal_goes(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_sequence_in_several_pieces_goes_too() -> None:
    shown = Plain()
    assert [shown.push(piece) for piece in ("x\x1b", "[3", "1", "my", "\x1b")] == ["x", "", "", "y", ""]


@given(PIECES)
def test_no_control_character_gets_through_however_the_text_is_cut(pieces: list[str]) -> None:
    shown = Plain()
    text = "".join(shown.push(piece) for piece in pieces)
    assert {c for c in text if unicodedata.category(c) == "Cc"} <= {"\n", "\t"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]))))
def test_ordinary_text_is_shown_as_it_is_and_at_once(pieces: list[str]) -> None:
    shown = Plain()
    assert [shown.push(piece) for piece in pieces] == pieces
