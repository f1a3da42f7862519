"""LLaVA's conversations, in the published file's shape, and what is odd in such files."""

import json

import pytest

from lensmith.core.errors import InputError
from lensmith.data.documents import ConversationTurn, PictureRef, documents
from lensmith.data.sources.base import problems
from lensmith.data.sources.llava import LlavaConfig
from tests.support.packages import png
from tests.support.tars import make_tar

PICTURE = png(6, 4)
NAME = "coco/train2017/000000033471.jpg"


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(PICTURE)
    return tmp_path / "pictures"


def said(*values, **fields):
    """A record as it is published: the speakers take turns, the human first."""
    turns = [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]
    return {"id": "000000033471", **fields, "conversations": turns}


GOOD = said("<image>\nWhat are the colors of the bus?", "White and red.", "Is it moving?", "No.", image=NAME)


def opened(tmp_path, records, folder, *, name="mix.json", text=None):
    path = tmp_path / name
    path.write_text(json.dumps(records, indent=2) if text is None else text, encoding="utf-8")
    return LlavaConfig(paths=(path,), pictures=(folder,)).open()


def test_a_record_as_it_is_published(tmp_path, folder):
    source = opened(tmp_path, [GOOD, said("Name a fruit.", "A pear.")], folder)
    found = source.document(0)
    assert found.turns == (
        ConversationTurn(role="user", pieces=(PictureRef(place=NAME), "What are the colors of the bus?")),
        ConversationTurn(role="assistant", pieces=("White and red.",)),
        ConversationTurn(role="user", pieces=("Is it moving?",)),
        ConversationTurn(role="assistant", pieces=("No.",)),
    )
    assert source.picture(found.pictures[0]) == PICTURE
    assert source.document(1).pieces == ("Name a fruit.", "A pear.")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.json", json.dumps),
        ("a.json", lambda records: "\ufeff" + json.dumps(records, ensure_ascii=False, indent=1).replace("\n", "\r\n")),
        ("a.jsonl", lambda records: "\r\n".join(map(json.dumps, records))),
        ("a.jsonl", lambda records: "\ufeff" + "\n\n".join(map(json.dumps, records)) + "\n"),
        ("a.json", lambda records: "\n".join(map(json.dumps, records))),
    ],
    ids=["array", "array, BOM, Windows", "lines, Windows", "lines, BOM", "lines in .json"],
)
def test_an_array_and_lines_hold_the_same(tmp_path, folder, name, written):
    records = [GOOD, said("«Ä»? 😀 <image>", "日本", image=[NAME])] * 3
    source = opened(tmp_path, None, folder, name=name, text=written(records))
    assert [document.turns for document in documents(source)] == [
        source.document(0).turns,
        (
            ConversationTurn(role="user", pieces=("«Ä»? 😀", PictureRef(place=NAME))),
            ConversationTurn(role="assistant", pieces=("日本",)),
        ),
    ] * 3


def test_an_array_is_read_in_pieces_of_any_size(tmp_path, folder):
    # Records of up to 3 MB, where the file is read by 1 MiB: they end everywhere within what was read.
    records = [said("ä" * (number * 37_001 % 1_500_000), "b") | {"id": number} for number in range(1, 12)]
    records = [record for record in records if record["conversations"][0]["value"]]
    source = opened(tmp_path, records, folder)
    assert [document.pieces[0] for document in documents(source)] == [
        record["conversations"][0]["value"] for record in records
    ]


ODD = {
    "a picture is not there": [
        said("<image> a", "b", image="coco/none.jpg"),
        said("<image>", "b", image="../../x.jpg"),
    ],
    "its placeholders and pictures differ in number": [
        said("<image> and <image>", "b", image=NAME),
        said("no placeholder", "b", image=NAME),
        said("<image>", "b"),
        said("<image>", "<image>", image=[NAME]),
    ],
    "its conversation is empty": [said()],
    "its conversation does not begin with the user": [
        {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}
    ],
    "its conversation does not end with an answer": [said("only a question"), said("a", "b", "c")],
    "its speakers do not take turns": [
        {"conversations": [{"from": "human", "value": "a"}, *[{"from": "gpt", "value": "b"}] * 2]}
    ],
    "a turn is empty": [said("a", " \n")],
    "a turn's speaker is unknown": [{"conversations": [{"from": "bot", "value": "a"}]}],
    "a turn has no speaker or no text": [
        {"conversations": [{"value": "a"}]},
        {"conversations": [{"from": "human", "value": 7}]},
        {"conversations": ["a"]},
        {"conversations": [{"from": ["human"], "value": "a"}]},
    ],
    "it has no conversations": [{"id": 1}, {"conversations": "a"}, {"conversations": {}}],
    "its image is neither a path nor a list of paths": [said("a", "b", image=7), said("a", "b", image=[None])],
    "its line is no JSON object": ["text", 12, None, [1]],
}


@pytest.mark.parametrize("cause", ODD)
def test_an_odd_record_costs_itself_and_says_its_cause(tmp_path, folder, cause):
    source = opened(tmp_path, [GOOD, *ODD[cause], GOOD], folder)
    assert problems(source).counts == {cause: len(ODD[cause])}
    assert len(list(documents(source))) == 2


def test_a_name_that_stands_twice_is_told(tmp_path, folder):
    text = '[{"image": "a.jpg", "image": "b.jpg", "conversations": []}, ' + json.dumps(GOOD) + "]"
    found = problems(opened(tmp_path, None, folder, text=text))
    assert found.counts == {"a name stands twice in its JSON": 1}
    assert "'image'" in str(found)


def test_bytes_that_are_no_utf8_cost_their_record(tmp_path, folder):
    path = tmp_path / "a.json"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"[" + good + b', {"a": "\xff"}, ' + good + b"]")
    source = LlavaConfig(paths=(path,), pictures=(folder,)).open()
    assert problems(source).counts == {"its line is not UTF-8": 1}
    assert len(list(documents(source))) == 2


def test_an_array_that_is_cut_is_refused_wherever_it_is_cut(tmp_path, folder):
    whole = json.dumps([GOOD, said("a", "ä")], ensure_ascii=False).encode()
    path = tmp_path / "a.json"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"is damaged or cut short at byte [\d,]+"):
            LlavaConfig(paths=(path,)).open()
    path.write_bytes(whole + b" x")
    with pytest.raises(InputError, match=f"cut short at byte {len(whole) + 1:,}"):
        LlavaConfig(paths=(path,)).open()


def test_a_picture_may_be_in_an_archive(tmp_path):
    path = make_tar(tmp_path / "coco.tar", [(f"./{NAME}", PICTURE)])
    source = opened(tmp_path, [GOOD], path)
    assert source.picture(source.document(0).pictures[0]) == PICTURE


def test_folders_of_links_are_read_and_rings_of_links_end(tmp_path, folder):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "coco").symlink_to(folder / "coco")
    (folder / "coco" / "ring").symlink_to(folder)
    source = opened(tmp_path, [GOOD], linked)
    assert source.picture(source.document(0).pictures[0]) == PICTURE


def test_the_fingerprint_is_of_records_and_pictures(tmp_path, folder):
    before = opened(tmp_path, [GOOD], folder).fingerprint
    assert opened(tmp_path, [GOOD], folder).fingerprint == before
    changed = opened(tmp_path, [GOOD, GOOD], folder).fingerprint
    (folder / NAME).write_bytes(PICTURE + b"0")
    assert len({before, changed, opened(tmp_path, [GOOD], folder).fingerprint}) == 3
