from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge_student.answering.stop_strings import StopFinder


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    finder = StopFinder(stops)
    shown = "".join(finder.push(piece) for piece in pieces)
    return shown + finder.flush(), finder.found is not None


def test_a_stop_string_over_pieces_is_found_and_no_part_of_it_shown() -> None:
    finder = StopFinder(["\n\nQ:"])
    assert finder.push("A.\n") == "A."
    assert finder.push("\nQ") == ""
    assert finder.push(": next") == ""
    assert finder.found


def test_a_stop_string_may_be_shown() -> None:
    finder = StopFinder(["\n\n", "Q"], show=True)
    assert finder.push("A.\n") == "A."
    assert finder.push("\nQ") == "\n\n"
    assert finder.found == "\n\n"


def test_what_turns_out_to_be_no_stop_is_shown() -> None:
    assert run(["ab", "ac"], ["abx"]) == ("abac", False)


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_equals_looking_at_the_whole_text(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    shown, found = run(pieces, stops)
    # The stop that is complete first ends the text; of those complete at once, the one that began first.
    ends = {text.find(stop) + len(stop): text.find(stop) for stop in stops if stop in text}
    assert found == bool(ends)
    if not ends:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
