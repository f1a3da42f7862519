"""Records with anything in them: each is a document or is counted as a bad record, and none ends the reading."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.core.errors import InputError
from lensmith.data.documents import documents
from lensmith.data.sources import JsonlConfig, LinkedConfig, LlavaConfig, Mmc4Config, ShardsConfig
from lensmith.data.sources.base import problems
from tests.support.packages import png
from tests.support.tars import make_tar

TURNS = [{"from": "human", "value": "<image>\na"}, {"from": "gpt", "value": "b"}]
INFO = {"image_name": "a.png", "raw_url": "http://a/a.png", "matched_text_index": 1}
GOOD = {
    LlavaConfig: {"id": "1", "image": "a.png", "conversations": TURNS},
    Mmc4Config: {"text_list": ["a", "b"], "image_info": [INFO], "url": "http://a"},
    LinkedConfig: {"url": "a.png", "caption": "a"},
    JsonlConfig: {"text": "a"},
    ShardsConfig: {"key": "k", "pieces": ["a", {"picture": "0.png", "sha256": ""}]},
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["<image>", "a.png", "../a.png", "\ud800", "human", "gpt", "system", 0, 1, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, way=()):
    """Ways to all values within a record."""
    yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in inner:
        yield from places(below, (*way, name))


@st.composite
def spoilt(draw, good):
    """The record with one value changed or taken out."""
    record = copy.deepcopy(good)
    *way, last = draw(st.sampled_from([way for way in places(record) if way]))
    holder = record
    for name in way:
        holder = holder[name]
    if draw(st.booleans()):
        holder[last] = draw(VALUES)
    else:
        del holder[last]
    return record


def opened(kind, folder, record):
    (folder / "a.png").write_bytes(png(3, 3))
    good = GOOD[kind]
    if kind is ShardsConfig:
        names = [(f"{number}.json", json.dumps(each)) for number, each in enumerate((good, record, good))]
        path = make_tar(folder / "a.tar", [*names, ("0.0.png", png(2, 2)), ("2.0.png", png(2, 2))])
        return kind(paths=(path,)).open()
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (good, record, good)), encoding="utf-8")
    return kind(paths=(path,), **({} if kind is JsonlConfig else {"pictures": (folder,)})).open()


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.kind)
@settings(max_examples=60)  # each writes files
@given(data=st.data())
def test_a_spoilt_record_is_a_document_or_is_counted(tmp_path_factory, kind, data):
    record = data.draw(st.one_of(spoilt(GOOD[kind]), VALUES))
    source = opened(kind, tmp_path_factory.mktemp("any"), record)
    found = problems(source)
    usable = list(documents(source))
    assert len(source) == 3
    assert len(usable) >= 2
    # `documents` looks at no picture, and `problems` does: none of the packed ones has the hash that its record says.
    assert 3 - len(usable) <= sum(found.counts.values()) <= 3
    for document in usable:
        "".join(piece for piece in document.pieces if isinstance(piece, str)).encode()


@given(data=st.binary(max_size=200) | st.text('[]{},:"\\ 12truefalsn\ufeff\n', max_size=60).map(str.encode))
def test_any_bytes_are_records_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_bytes(data)
    try:
        source = LlavaConfig(paths=(path,)).open()
    except InputError as error:
        assert "byte" in error.problem or "compressed" in error.problem
        with pytest.raises(ValueError, match=r""):
            json.loads(data)
    else:
        assert sum(problems(source).counts.values()) == len(source)


def test_a_number_of_any_length_costs_its_record_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'[{{"a": {"9" * 9_999}}}, {{"conversations": []}}]')
    found = problems(LlavaConfig(paths=(path,)).open())
    assert found.counts == {"its line is not JSON": 1, "its conversation is empty": 1}
