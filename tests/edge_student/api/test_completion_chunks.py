"""OpenAI's columns for tokens that are not whole characters, and for a vocabulary that puts a space in front."""

from __future__ import annotations

from edge_student.answering.choice import ChoiceEnded, PromptScores, TextPart
from edge_student.api.completion_chunks import GrowingText, Token, joined
from edge_student.student import Alternative, Score
from shared.protocol.gkt import Source
from shared.protocol.openai_responses import TextChoice, TokenLogprob, TopLogprob


def score(token: bytes, *alternatives: Alternative) -> Score:
    return Score(token, -1.0, rank=0, entropy=1.0, alternatives=alternatives)


def piece(text: str, *tokens: bytes) -> TextPart:
    entries = [TokenLogprob(token="", bytes=list(token), logprob=-2.0) for token in tokens]
    return TextPart(0, text, Source.STUDENT, tuple(entries))


def tokens(*pieces: bytes) -> list[Token]:
    return [Token(piece, at) for at, piece in enumerate(pieces)]


def whole(growing: GrowingText, *parts: PromptScores | TextPart | ChoiceEnded) -> TextChoice:
    return joined(0, [chunk for part in parts for chunk in growing.chunks(part)], logprobs=True)


def test_a_character_of_several_tokens_is_named_by_its_bytes_and_counted_once() -> None:
    egg = "\U0001f95a".encode()
    growing = GrowingText(0, echo="a\U0001f95a", prompt=tokens(b"a", egg[:2], egg[2:]), logprobs=True)
    scored = PromptScores(0, [score(egg[:2]), score(egg[2:])])
    choice = whole(growing, scored, piece("\u00e9b", b"\xc3", b"\xa9", b"b"), ChoiceEnded(0, "stop"))
    assert choice.text == "a\U0001f95a\u00e9b"
    assert choice.logprobs
    assert choice.logprobs.tokens == ["a", "bytes:\\xf0\\x9f", "bytes:\\xa5\\x9a", "bytes:\\xc3", "bytes:\\xa9", "b"]
    assert choice.logprobs.text_offset == [0, 1, 1, 2, 2, 3]
    assert choice.finish_reason == "stop"


def test_a_space_that_the_vocabulary_puts_in_front_moves_no_offset() -> None:
    growing = GrowingText(0, echo="Hi you", prompt=tokens(b" Hi", b" you"), logprobs=True)
    choice = whole(growing, PromptScores(0, [score(b" you")]), piece("!", b"!"))
    assert choice.text == "Hi you!"
    assert choice.logprobs
    assert choice.logprobs.text_offset == [0, 2, 6]


def test_of_alternatives_with_one_name_the_more_probable_stays() -> None:
    # Control tokens have no text: their name is empty.
    growing = GrowingText(0, echo="ab", prompt=tokens(b"a", b"b"), logprobs=True)
    scores = [score(b"b", Alternative(b"", -0.1), Alternative(b"", -0.7))]
    columns = whole(growing, PromptScores(0, scores)).logprobs
    assert columns
    assert columns.top_logprobs == [None, {"": -0.1, "b": -1.0}]


def test_alternatives_of_the_answer_keep_their_names() -> None:
    entry = TokenLogprob(
        token="b", bytes=[98], logprob=-2.0, top_logprobs=[TopLogprob(token="c", bytes=[99], logprob=-0.5)]
    )
    growing = GrowingText(0, echo="", prompt=(), logprobs=True)
    columns = whole(growing, TextPart(0, "b", Source.STUDENT, (entry,))).logprobs
    assert columns
    assert columns.top_logprobs == [{"c": -0.5, "b": -2.0}]


def test_tokens_go_by_their_ids_where_that_is_wanted() -> None:
    growing = GrowingText(0, echo="ab", prompt=tokens(b"a", b"b"), logprobs=True, named_by_ids=True)
    scored = Score(b"b", -1.0, rank=1, entropy=1.0, alternatives=(Alternative(b"", -0.1, 9),), token_id=1)
    entry = TokenLogprob(token="c", bytes=[99], logprob=-2.0, token_id=2)
    columns = whole(growing, PromptScores(0, [scored]), TextPart(0, "c", Source.STUDENT, (entry,))).logprobs
    assert columns
    assert columns.tokens == ["token_id:0", "token_id:1", "token_id:2"]
    assert columns.top_logprobs[1] == {"token_id:9": -0.1, "token_id:1": -1.0}
    assert columns.text_offset == [0, 1, 2]
