from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_student.answering.word_boundary_buffer import TAIL_TOKENS, WordBoundaryBuffer


def cut(pieces: list[str], budget: int | None, *, complete: bool = False) -> str:
    seam = WordBoundaryBuffer(budget)
    return "".join(seam.push(piece, 1) for piece in pieces) + seam.finish(complete=complete)


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ([" There", " are", " 1", "8"], " There are"),
        ([" costs", " $", "1", ".", "5"], " costs"),
        ([" x", "=", "1", "2"], ""),
        ([" the", " end", "."], " the"),
        ([" ends", " on", " "], " ends on"),
        ([" line", "\n", "\n"], " line"),
        (["一", "共", "3", "个", "苹", "果"], "一共3个苹"),
        (["สวัส", "ดี"], "สวัส"),
    ],
)
def test_a_cut_drops_the_word_begun(pieces: list[str], kept: str) -> None:
    assert cut(pieces, len(pieces)) == kept


def test_guidance_that_is_complete_loses_nothing() -> None:
    assert cut([" It", " is", " 1", "8"], 4, complete=True) == " It is 18"


def test_words_go_straight_through_far_from_the_budgets_end() -> None:
    seam = WordBoundaryBuffer(TAIL_TOKENS + 10)
    assert seam.push("Let", 1) == "Let"
    assert seam.push("ter", 1) == "ter"


def test_a_number_waits_even_far_from_the_budgets_end() -> None:
    seam = WordBoundaryBuffer(TAIL_TOKENS + 10)
    assert seam.push("There are 1", 3) == "There are"
    assert seam.push("8", 1) == ""
    assert seam.push(" eggs", 1) == " 18 eggs"


def test_a_word_begun_in_the_open_is_not_left_a_stump() -> None:
    seam = WordBoundaryBuffer(TAIL_TOKENS + 1)
    assert seam.push("under", 1) == "under"
    assert seam.push("stand", 1) == ""
    assert seam.finish(complete=False) == "stand"


def test_what_is_held_back_is_foreseen_until_the_guidance_ends() -> None:
    seam = WordBoundaryBuffer(6)
    ahead = []
    for piece in [" In", " Ap", "ril", " she", " sold", " 48"]:
        seam.push(piece, 1)
        ahead.append(seam.ahead)
    assert ahead[:2] == [" In", " Ap"]
    assert ahead[2:] == [" April", "", "", ""], "the fourth begins a word within the wrap-up: the guidance ends there"


def test_nothing_is_foreseen_behind_the_budget() -> None:
    seam = WordBoundaryBuffer(2)
    seam.push("under", 1)
    assert seam.ahead == "under"
    seam.push("stand", 1)
    assert seam.ahead == ""


def test_nothing_is_held_where_nothing_follows() -> None:
    seam = WordBoundaryBuffer(None)
    assert seam.push("1", 1) == "1"
    assert seam.push("8", 1) == "8"
    assert seam.finish(complete=True) == ""


@given(st.lists(st.text(max_size=6), max_size=12), st.integers(1, 40), st.booleans())
def test_what_is_let_through_is_a_prefix_of_what_came(pieces: list[str], budget: int, complete: bool) -> None:
    kept = cut(pieces, budget, complete=complete)
    assert "".join(pieces).startswith(kept)
    if complete:
        assert kept == "".join(pieces)


@given(st.lists(st.sampled_from([" a", " 1", "2", ".", "5", " ", "\n", "word", "$", "x="]), max_size=12))
def test_a_cut_is_never_inside_a_number(pieces: list[str]) -> None:
    text = "".join(pieces)
    kept = cut(pieces, len(pieces))
    rest = text[len(kept) :]
    assert not (kept[-1:].isdigit() and rest[:1].isdigit())
    assert not kept.endswith((" ", "\n"))


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ('{"eggs":1', '{"eggs":'),
        ('{"eggs":18,', '{"eggs":18,'),
        ('{"eggs":18}', '{"eggs":18}'),
        ('{"eg', "{"),
        ('{"eggs"', '{"eggs"'),
        ('{"note":"two, thr', '{"note":"two,'),
        ('{"note":"a:b,c', '{"note":'),
        ('{"note":"say \\"no\\"', '{"note":"say'),
        ('{"note":"say \\"no\\\\",tru', '{"note":"say \\"no\\\\",'),
        ("[1,2", "[1,"),
        ("[tru", "["),
    ],
)
def test_json_is_cut_between_its_values(text: str, used: str) -> None:
    for pieces in ([text], list(text)):
        seam = WordBoundaryBuffer(len(pieces), json=True)
        assert "".join([seam.push(piece, 1) for piece in pieces]) + seam.finish(complete=False) == used
