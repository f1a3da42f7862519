"""Text comes in whole characters, never with a part of a stop string, and with the tokens that it comes from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.models.inference.text_stream import TextStream, context_of


def bytes_as_text(tokens):
    return bytes(tokens).decode("utf-8", "replace")


def stream_of(text, stops=(), sizes=(1,)):
    """Bytes as tokens: tells the pieces, how many tokens each had, and whether a stop was met."""
    data = text.encode()
    stream = TextStream(bytes_as_text, stops)
    released = []
    for byte in data:
        released.append(stream.push(byte))
        if released[-1].stopped:
            return released
    return [*released, stream.finish()]


@given(st.text(max_size=30), st.lists(st.text("ab\u00e9 ", min_size=1, max_size=4), max_size=3))
def test_pieces_join_to_the_text_before_the_first_stop(text, stops):
    text = text.replace("\ufffd", "")
    released = stream_of(text, stops)
    places = [text.find(stop) for stop in stops if stop in text]
    # Of several stops the one that ends first in time wins; where it begins is where the text ends.
    joined = "".join(piece.text for piece in released)
    assert text.startswith(joined)
    assert not any(stop in joined for stop in stops)
    assert released[-1].stopped == bool(places)
    if not places:
        assert joined == text
        assert sum(piece.tokens for piece in released) == len(text.encode())
    for piece in released:
        piece.text.encode()  # whole characters


@given(st.text("abc\u00e9\u20ac", max_size=20))
def test_tokens_are_told_with_their_text(text):
    told = b""
    data = text.encode()
    position = 0
    for piece in stream_of(text, ["never"]):
        told += piece.text.encode()
        position += piece.tokens
        assert data[:position] == told


@pytest.mark.parametrize(
    ("text", "stops", "pieces"),
    [
        ("abcde", ["cd"], ["a", "b", "", ""]),
        ("abcx", ["cd"], ["a", "b", "", "cx", ""]),
        ("abc", ["cd"], ["a", "b", "", "c"]),
        ("\u20acx", [], ["", "", "\u20ac", "x", ""]),
    ],
)
def test_literal(text, stops, pieces):
    assert [piece.text for piece in stream_of(text, stops)] == pieces


@given(st.text(max_size=12), st.binary(max_size=6))
def test_tokens_begin_where_their_characters_do(text, broken):
    data = text.replace("\ufffd", "").encode()
    stream = TextStream(bytes_as_text)
    starts = []
    for byte in data:
        starts.append(stream.length)
        stream.push(byte)
    assert starts == [len(data[:place].decode(errors="ignore")) for place in range(len(data))]
    for byte in broken:
        stream.push(byte)
    stream.finish()
    assert stream.length == len(bytes_as_text([*data, *broken]))


@given(st.text(max_size=12), st.integers(0, 40), st.text(max_size=12))
def test_an_answer_goes_on_from_whatever_bytes_of_a_prompt(prompt, cut, text):
    before = context_of(bytes_as_text, list(prompt.encode()[: max(0, len(prompt.encode()) - cut)]))
    stream = TextStream(bytes_as_text, before=before)
    released = [*map(stream.push, text.encode()), stream.finish()]
    assert "".join(piece.text for piece in released) == text
    assert sum(piece.tokens for piece in released) == len(text.encode())


@pytest.mark.parametrize(
    ("prompt", "context"),
    [
        (b"", b""),
        (b"ab", b"b"),
        ("a\u20ac".encode(), "\u20ac".encode()),
        ("a\u20ac".encode()[:-1], b"a"),
        (b"a\xff\xff\xff\xff", b""),
    ],
)
def test_the_context_of_an_answer_is_whole_characters(prompt, context):
    assert bytes(context_of(bytes_as_text, list(prompt))) == context
