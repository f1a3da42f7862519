"""Server-sent events: written as OpenAI writes them, and read in whatever pieces they come."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.openai_api import SSE_DONE, MalformedAnswerError, sse
from lensmith.openai_api.events import DONE, EventReader

VALUES = st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3)


def read(pieces: list[bytes], most_bytes: int = 1 << 16) -> list[bytes]:
    reader = EventReader(most_bytes)
    return [event for piece in pieces for event in reader.feed(piece)] + list(reader.close())


@given(st.lists(VALUES, max_size=4), st.lists(st.integers(0, 200)), st.sampled_from([b"\n", b"\r\n"]))
def test_what_is_written_is_read_in_any_pieces(values, cuts, newline):
    written = b": comment\n\nevent: x\n" + b"".join(map(sse, values)) + SSE_DONE
    text = written.replace(b"\n", newline)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    events = read([text[start:end] for start, end in itertools.pairwise(places)])
    assert [json.loads(event) for event in events[:-1]] == values
    assert events[-1] == DONE


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data:a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:  a\n\n", [b" a"]),
        (b"id: 1\nretry: 5\n\n\n\n", []),
        (b"data: a", [b"a"]),  # its blank line never came
        (b"data: a\n", [b"a"]),
        (b"", []),
    ],
)
def test_what_is_an_event(text, events):
    assert read([text]) == events


@pytest.mark.parametrize("text", [b'{"error": 1}\n', b"<html>\n", b"data\xff: a\n", b"data: " + b"x" * 99 + b"\n\n"])
def test_what_is_no_event_is_malformed(text):
    with pytest.raises(MalformedAnswerError):
        read([text], most_bytes=50)


def test_an_event_without_end_is_not_collected_for_ever():
    reader = EventReader(100)
    with pytest.raises(MalformedAnswerError, match="too long"):
        for _ in range(30):
            assert list(reader.feed(b"data: abcdef\n")) == []
