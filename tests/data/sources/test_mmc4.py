"""Documents as Multimodal C4 publishes them."""

import json
import zipfile

import pytest

from lensmith.core.errors import InputError
from lensmith.data.documents import PictureRef, documents
from lensmith.data.sources.base import UNREADABLE_PICTURE, problems
from lensmith.data.sources.mmc4 import Mmc4Config, PictureSide
from tests.support.packages import png
from tests.support.tars import make_tar

PICTURES = {"b9040a0dbb22.jpg": png(3, 4), "db1c21bc8474.jpg": png(5, 6)}


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name, content in PICTURES.items():
        (tmp_path / "pictures" / name).write_bytes(content)
    return tmp_path / "pictures"


def info(name, sentence, **more):
    return {
        "face_detections": None,
        "image_name": name,
        "matched_sim": 0.27694183588027954,
        "matched_text_index": sentence,
        "raw_url": f"http://www.example.com/pictures/{name}",
        **more,
    }


def record(sentences, *infos, **more):
    """A line with the fields that are published."""
    return {
        "text_list": sentences,
        "url": "http://www.example.com/page.html",
        "image_info": list(infos),
        "similarity_matrix": [[0.1] * len(sentences)] * len(infos),
        "could_have_url_duplicate": 0,
        **more,
    }


ONE, TWO = PICTURES
GOOD = record(["First.", "Second.", " Third. "], info(ONE, 2), info(TWO, 1))


def opened(tmp_path, records, folder, **settings):
    path = tmp_path / "docs_no_face_shard_0_v3.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return Mmc4Config(paths=(path,), pictures=(folder,), **settings).open()


def test_a_picture_stands_before_the_sentence_that_it_is_matched_to(tmp_path, folder):
    source = opened(tmp_path, [GOOD], folder)
    assert source.document(0).pieces == ("First.", PictureRef(place=TWO), "Second.", PictureRef(place=ONE), "Third.")
    assert [source.picture(ref) for ref in source.document(0).pictures] == [PICTURES[TWO], PICTURES[ONE]]


def test_or_behind_it(tmp_path, folder):
    source = opened(tmp_path, [GOOD], folder, side=PictureSide.BEHIND)
    assert source.document(0).pieces == ("First. Second.", PictureRef(place=TWO), "Third.", PictureRef(place=ONE))


def test_pictures_of_one_sentence_keep_their_order(tmp_path, folder):
    source = opened(tmp_path, [record(["a"], info(TWO, 0), info(ONE, 0))], folder)
    assert [ref.place for ref in source.document(0).pictures] == [TWO, ONE]


def test_pictures_may_be_in_an_archive(tmp_path):
    source = opened(tmp_path, [GOOD], make_tar(tmp_path / "pictures.tar", PICTURES.items()))
    assert [source.picture(ref) for ref in source.document(0).pictures] == [PICTURES[TWO], PICTURES[ONE]]


def test_a_document_does_without_a_picture_that_is_not_there(tmp_path, folder):
    (folder / TWO).unlink()
    source = opened(tmp_path, [GOOD], folder)
    assert source.document(0).pieces == ("First. Second.", PictureRef(place=ONE), "Third.")


ODD = {
    "none of its pictures is there": [record(["a"], info("none.jpg", 0)), record(["a"], info("../x.jpg", 0))],
    "it has no text and no picture": [record([]), record(["", " "])],
    "its text_list is no list of texts": [record("abc"), record(["a", None]), {"image_info": []}],
    "its image_info is no list of objects": [GOOD | {"image_info": {}}, GOOD | {"image_info": ["a.jpg"]}],
    "a picture of it has no name": [record(["a"], info(None, 0)), record(["a"], info(ONE, 0, raw_url=7))],
    "a picture of it is matched to no sentence": [
        record(["a"], info(ONE, place)) for place in (1, -1, None, "0", True, 0.0)
    ],
    "its line is no JSON object": [[], "a", 1],
}


@pytest.mark.parametrize("cause", ODD)
def test_an_odd_record_costs_itself_and_says_its_cause(tmp_path, folder, cause):
    source = opened(tmp_path, [GOOD, *ODD[cause], GOOD], folder)
    assert problems(source).counts == {cause: len(ODD[cause])}
    assert len(list(documents(source))) == 2


def test_a_picture_that_cannot_be_read_is_a_problem(tmp_path, folder):
    (folder / ONE).write_bytes(b"<html>404</html>")
    assert problems(opened(tmp_path, [GOOD], folder)).counts == {UNREADABLE_PICTURE: 1}


def test_a_last_line_that_is_cut_is_a_bad_record(tmp_path, folder):
    source = opened(tmp_path, [GOOD, GOOD], folder)
    path = next(tmp_path.glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-9])
    source = Mmc4Config(paths=(path,), pictures=(folder,)).open()
    assert problems(source).counts == {"its line is not JSON": 1}
    assert len(source) == 2


def test_the_zip_as_it_is_published_is_refused_with_what_unpacks_it(tmp_path):
    path = tmp_path / "docs_no_face_shard_0_v3.jsonl.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("docs_no_face_shard_0_v3.jsonl", json.dumps(GOOD))
    for paths in ((path,), (tmp_path,)):
        with pytest.raises(InputError, match="is compressed") as caught:
            Mmc4Config(paths=paths).open()
        assert "unzip" in caught.value.hint


def test_addresses_are_those_of_all_pictures(tmp_path, folder):
    opened(tmp_path, [GOOD, record(["a"], info(ONE, 7)), record(["a"], info(ONE, 0, raw_url=None))], folder)
    config = Mmc4Config(paths=(tmp_path,))
    assert list(config.addresses()) == [f"http://www.example.com/pictures/{name}" for name in (ONE, TWO)]
