"""A choice of a text completion: its chunks, and OpenAI's columns for tokens that are not whole characters."""

from __future__ import annotations

from edge_student.answering.choice import ChoiceEnded, PromptScores, PromptUsage, TextPart
from edge_student.api.completion_choice import CompletionChoiceBuilder, Token
from edge_student.student import Alternative, Score
from shared.protocol.gkt import Source
from shared.protocol.openai_responses import TextChoice, TextLogprobs, TokenLogprob, TopLogprob


def score(token: bytes, *alternatives: Alternative) -> Score:
    return Score(token, -1.0, rank=0, entropy=1.0, alternatives=alternatives)


def piece(text: str, *tokens: bytes) -> TextPart:
    entries = [TokenLogprob(token="", bytes=list(token), logprob=-2.0) for token in tokens]
    return TextPart(0, text, Source.STUDENT, tuple(entries))


def tokens(*pieces: bytes) -> list[Token]:
    return [Token(piece, at) for at, piece in enumerate(pieces)]


Added = PromptUsage | PromptScores | TextPart | ChoiceEnded


def whole(builder: CompletionChoiceBuilder, *parts: Added) -> TextChoice:
    for part in parts:
        builder.add(part)
    return builder.assemble()


def test_the_chunks_add_up_to_the_whole_choice() -> None:
    def builder() -> CompletionChoiceBuilder:
        return CompletionChoiceBuilder(3, echo="ab", prompt=tokens(b"a", b"b"), logprobs=True, token_ids=True)

    end = TokenLogprob(token="", bytes=[], logprob=-3.0)
    parts: list[Added] = [
        PromptUsage(3, 2, 0),
        PromptScores(3, [score(b"b")]),
        TextPart(3, "c", Source.STUDENT, piece("c", b"c").logprobs, (7,)),
        TextPart(3, "d", Source.STUDENT),
        ChoiceEnded(3, "stop", end, stop="x"),
    ]
    streaming = builder()
    chunks = [chunk for part in parts for chunk in streaming.chunks(part)]
    choice = whole(builder(), *parts)
    assert [chunk.text for chunk in chunks] == ["ab", "c", "d", ""]
    assert [chunk.token_ids for chunk in chunks] == [None, [7], [], None]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert (choice.index, choice.text, choice.token_ids, choice.stop_reason) == (3, "abcd", [7], "x")
    assert choice.logprobs
    for field in TextLogprobs.model_fields:
        added = [entry for chunk in chunks if chunk.logprobs for entry in getattr(chunk.logprobs, field)]
        assert added == getattr(choice.logprobs, field)
        assert len(added) == 4


def test_a_choice_without_tokens_has_empty_columns_and_a_chunk_has_none() -> None:
    ended = ChoiceEnded(0, "length")
    streaming, other = (CompletionChoiceBuilder(0, echo="", prompt=(), logprobs=True) for _ in range(2))
    assert [chunk.logprobs for chunk in streaming.chunks(ended)] == [None]
    assert whole(other, ended).logprobs == TextLogprobs()


def test_a_character_of_several_tokens_is_named_by_its_bytes_and_counted_once() -> None:
    egg = "\U0001f95a".encode()
    builder = CompletionChoiceBuilder(0, echo="a\U0001f95a", prompt=tokens(b"a", egg[:2], egg[2:]), logprobs=True)
    scored = PromptScores(0, [score(egg[:2]), score(egg[2:])])
    choice = whole(builder, scored, piece("\u00e9b", b"\xc3", b"\xa9", b"b"), ChoiceEnded(0, "stop"))
    assert choice.text == "a\U0001f95a\u00e9b"
    assert choice.logprobs
    assert choice.logprobs.tokens == ["a", "bytes:\\xf0\\x9f", "bytes:\\xa5\\x9a", "bytes:\\xc3", "bytes:\\xa9", "b"]
    assert choice.logprobs.text_offset == [0, 1, 1, 2, 2, 3]
    assert choice.finish_reason == "stop"


def test_a_space_that_the_vocabulary_puts_in_front_moves_no_offset() -> None:
    builder = CompletionChoiceBuilder(0, echo="Hi you", prompt=tokens(b" Hi", b" you"), logprobs=True)
    choice = whole(builder, PromptScores(0, [score(b" you")]), piece("!", b"!"))
    assert choice.text == "Hi you!"
    assert choice.logprobs
    assert choice.logprobs.text_offset == [0, 2, 6]


def test_of_alternatives_with_one_name_the_more_probable_stays() -> None:
    # Control tokens have no text: their name is empty.
    builder = CompletionChoiceBuilder(0, echo="ab", prompt=tokens(b"a", b"b"), logprobs=True)
    scores = [score(b"b", Alternative(b"", -0.1), Alternative(b"", -0.7))]
    columns = whole(builder, PromptScores(0, scores)).logprobs
    assert columns
    assert columns.top_logprobs == [None, {"": -0.1, "b": -1.0}]


def test_alternatives_of_the_answer_keep_their_names() -> None:
    entry = TokenLogprob(
        token="b", bytes=[98], logprob=-2.0, top_logprobs=[TopLogprob(token="c", bytes=[99], logprob=-0.5)]
    )
    builder = CompletionChoiceBuilder(0, echo="", prompt=(), logprobs=True)
    columns = whole(builder, TextPart(0, "b", Source.STUDENT, (entry,))).logprobs
    assert columns
    assert columns.top_logprobs == [{"c": -0.5, "b": -2.0}]


def test_tokens_go_by_their_ids_where_that_is_wanted() -> None:
    builder = CompletionChoiceBuilder(0, echo="ab", prompt=tokens(b"a", b"b"), logprobs=True, names_are_ids=True)
    scored = Score(b"b", -1.0, rank=1, entropy=1.0, alternatives=(Alternative(b"", -0.1, 9),), token_id=1)
    entry = TokenLogprob(token="c", bytes=[99], logprob=-2.0, token_id=2)
    columns = whole(builder, PromptScores(0, [scored]), TextPart(0, "c", Source.STUDENT, (entry,))).logprobs
    assert columns
    assert columns.tokens == ["token_id:0", "token_id:1", "token_id:2"]
    assert columns.top_logprobs[1] == {"token_id:9": -0.1, "token_id:1": -1.0}
    assert columns.text_offset == [0, 1, 2]
