"""Documents as tokens, and cutting: what is where in cases small enough to write down."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import ConfigError, InputError
from lensmith.data.documents import Document, PictureRef
from lensmith.data.plan.tokens import Cutter, Span, Tokens, encode
from tests.support.documents import BEGIN, END, IMAGE, byte_tokens

PICTURE = PictureRef(place="red")


def encoded(*pieces, per_picture=3):
    return encode(Document(key="d", pieces=pieces), byte_tokens(per_picture))


def spans(pieces, *, max_tokens, max_pictures=9, per_picture=3):
    cutter = Cutter(byte_tokens(per_picture), max_tokens=max_tokens, max_pictures=max_pictures)
    return list(cutter.spans(encoded(*pieces, per_picture=per_picture)))


def test_a_document_begins_ends_and_holds_its_pictures_places():
    found = encoded("ab", PICTURE, "c", PICTURE)
    assert found.ids_T.tolist() == [BEGIN, 97, 98, IMAGE, IMAGE, IMAGE, 99, IMAGE, IMAGE, IMAGE, END]
    assert found.learnt_T.tolist() == [False, True, True, False, False, False, True, False, False, False, True]
    assert found.picture_starts == (3, 7)


def test_a_text_with_the_placeholder_is_refused():
    tokens = byte_tokens()
    sly = Tokens(**{**vars(tokens), "encode": lambda text: [IMAGE]})
    with pytest.raises(InputError, match="the token that stands for a picture"):
        encode(Document(key="d", pieces=("x",)), sly)


def test_what_fits_is_not_cut():
    assert spans(["abcdef"], max_tokens=8) == [Span(0, 8, 0)]


def test_a_long_text_is_cut_behind_a_paragraph_or_else_a_sentence():
    assert spans(["one. two\nthree. four"], max_tokens=15) == [Span(0, 10, 0), Span(10, 22, 0)]
    assert spans(["one two. three four"], max_tokens=15) == [Span(0, 9, 0), Span(9, 21, 0)]
    assert spans(["onetwothreefour"], max_tokens=10) == [Span(0, 10, 0), Span(10, 17, 0)]


def test_a_picture_is_never_cut():
    # The picture's tokens are 7 to 9: at most 9 tokens would end within it.
    assert spans(["abcdef", PICTURE, "g"], max_tokens=9) == [Span(0, 7, 0), Span(7, 12, 1)]


def test_pictures_are_counted_to_their_limit():
    found = spans([PICTURE, "a", PICTURE, "b", PICTURE], max_tokens=100, max_pictures=2)
    assert [span.pictures for span in found] == [2, 1]
    assert found[0].stop == found[1].start


def test_a_sequence_must_hold_a_picture():
    with pytest.raises(ConfigError, match="does not hold one picture"):
        Cutter(byte_tokens(per_picture=64), max_tokens=64, max_pictures=1)


@given(
    pieces=st.lists(st.one_of(st.just(PICTURE), st.text("ab. \n", max_size=30)), max_size=12),
    max_tokens=st.integers(5, 40),
    max_pictures=st.integers(1, 3),
)
def test_spans_hold_all_of_a_document_once_and_keep_to_the_limits(pieces, max_tokens, max_pictures):
    document = encoded(*pieces)
    found = list(Cutter(byte_tokens(), max_tokens=max_tokens, max_pictures=max_pictures).spans(document))
    assert [found[0].start, found[-1].stop] == [0, len(document.ids_T)]
    assert all(one.stop == other.start for one, other in pairwise(found))
    assert all(0 < span.tokens <= max_tokens and span.pictures <= max_pictures for span in found)
    for span in found:
        inside = [start for start in document.picture_starts if span.start <= start < span.stop]
        assert len(inside) == span.pictures
        assert all(start + 3 <= span.stop for start in inside)
