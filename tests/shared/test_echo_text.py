"""The text of the echo models."""

from __future__ import annotations

import pytest

from shared.echo_text import Mark, NotEcho, foreign_nonces, next_word, read_mark, read_words

MARK = Mark("kqzvhbtx", 14)


def said(mark: Mark, writers: str) -> str:
    text = ""
    for writer in writers:
        text += next_word(mark, text, "t" if writer == "t" else "s") or ""
    return text


def test_each_word_says_where_it_stands_whoever_writes() -> None:
    text = said(MARK, "ttttsssss" * 3)

    words = list(read_words(text))
    assert len(words) == MARK.words
    assert all(word.claimed_at == word.at for word in words)
    assert next_word(MARK, text, "s") is None
    assert text.count("\n") == 2


def test_a_prompt_with_words_of_two_requests_has_the_other_ones_nonce() -> None:
    assert read_mark(f"user: {MARK} Why?\n") == MARK
    assert read_mark(f"{MARK} Why? kqzvhbtxt0; kqzvhbtxt12;") == MARK
    assert read_mark(f"{MARK} Why? kqzvhbtxt0; aaaabbbbt12;").nonce == "aaaabbbb"


@pytest.mark.parametrize("text", ["kqzvhbtxt0; kqzvhb", "kqzvhbtxt0;xkqzvhbtxt12;", "KQzvhbtxt0;"])
def test_half_a_word_is_none(text: str) -> None:
    with pytest.raises(NotEcho):
        list(read_words(text))


def test_foreign_nonces_are_found_wherever_they_stand() -> None:
    nonces = {"kqzvhbtx", "aaaabbbb"}

    assert foreign_nonces("xaaaabbbbyy kqzvhbtxt0;", "kqzvhbtx", nonces) == {"aaaabbbb"}
