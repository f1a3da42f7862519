"""Webdataset archives: records, bad records, broken archives, and the index that is kept beside them."""

import gzip
import io
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import InputError
from lensmith.data.documents import BadRecordError, Document, PictureRef, documents
from lensmith.data.sources.base import UNREADABLE_PICTURE, Portion, problems
from lensmith.data.sources.tars import TarConfig
from tests.support.packages import png
from tests.support.tars import make_tar

RED = png(4, 2)
GOOD = [("a/1.jpg", RED), ("a/1.txt", " one \n"), ("a/1.json", "{}"), ("a/2.txt", "two"), ("a/2.png", RED)]


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


def opened(path, **settings):
    return TarConfig(paths=(path,), **settings).open()


def test_a_record_is_a_picture_and_its_caption(tmp_path):
    source = opened(make_tar(tmp_path / "a.tar", [*GOOD, ("a/readme.md", "#"), ("b.cls", "7")]))
    assert list(documents(source)) == [
        Document(key="a/1", pieces=(PictureRef(place="0"), "one")),
        Document(key="a/2", pieces=(PictureRef(place="1"), "two")),
    ]
    assert len(source) == 2
    assert [source.picture(PictureRef(place=place)) for place in "01"] == [RED, RED]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "PNG"])
def test_pictures_of_all_kinds(tmp_path, suffix):
    source = opened(make_tar(tmp_path / "a.tar", [(f"./1.{suffix}", RED), ("./1.txt", "one")]))
    assert [document.key for document in documents(source)] == ["1"]
    assert source.picture(source.document(0).pictures[0]) == RED


@pytest.mark.parametrize("name", ["ä" * 70 + "/1", "deep/" * 60 + "1"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_any_length(tmp_path, name, form):
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for suffix in ("txt", "png"):
            (tmp_path / "member").write_bytes(RED if suffix == "png" else b"one")
            archive.add(tmp_path / "member", f"{name}.{suffix}")
    source = opened(tmp_path / "a.tar")
    assert source.document(0).key == name
    assert source.picture(source.document(0).pictures[0]) == RED


def test_a_caption_may_be_a_field_of_the_json(tmp_path):
    path = make_tar(tmp_path / "a.tar", [("1.png", RED), ("1.txt", "one"), ("1.json", '{"alt": " uno", "n": 1}')])
    assert opened(path, caption_field="alt").document(0).pieces[1] == "uno"
    with pytest.raises(BadRecordError, match="its JSON has no text 'n'"):
        opened(path, caption_field="n").document(0)


def test_what_no_utf8_can_say_is_replaced(tmp_path):
    about = '{"alt": "a\\ud83d", "group": "g\\udc00"}'
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin1") as archive:
        for suffix, content in (("png", RED), ("json", about.encode())):
            member = tarfile.TarInfo(f"\xe4.{suffix}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for portion in Portion:
        for document in documents(opened(tmp_path / "a.tar", caption_field="alt", portion=portion)):
            assert "".join([document.key, document.pieces[1]]).replace("\ufffd", "") == "a"


PROBLEMS = {
    "it has no picture": [("x.txt", "x")],
    "it has no caption": [("x.png", RED)],
    "its caption is empty": [("x.png", RED), ("x.txt", " \n")],
    "its caption is not UTF-8": [("x.png", RED), ("x.txt", b"\xff\xfe")],
    "its picture is empty": [("x.png", ""), ("x.txt", "x")],
    "its key stands twice": [("x.png", RED), ("x.txt", "x"), ("y.txt", "y"), ("x.png", RED)],
    "it has several pictures": [("x.png", RED), ("x.jpg", RED), ("x.txt", "x")],
    "its text is too long": [("x.png", RED), ("x.txt", "x" * (1 << 20) + "x")],
    UNREADABLE_PICTURE: [("x.png", "no picture"), ("x.txt", "x")],
}


@pytest.mark.parametrize("cause", PROBLEMS)
def test_a_bad_record_costs_itself_and_says_its_cause(tmp_path, cause):
    source = opened(make_tar(tmp_path / "a.tar", [*GOOD, *PROBLEMS[cause]]))
    found = problems(source)
    assert found.counts.pop(cause) == 1
    assert set(found.counts) <= {"it has no picture"}  # of y, which has a text alone
    assert "x" in found.first[cause][0]
    assert [document.key for document in documents(source)][:2] == ["a/1", "a/2"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [("[", "its JSON cannot be read"), ("[" * 99_999, "its JSON cannot be read"), ("[1]", "its JSON has no text 'c'")],
)
def test_json_that_is_none(tmp_path, content, cause):
    source = opened(make_tar(tmp_path / "a.tar", [("1.png", RED), ("1.json", content)]), caption_field="c")
    assert problems(source).counts == {cause: 1}


def test_problems_are_counted_by_cause_and_the_first_are_shown(tmp_path):
    files = [(f"{number}.png", RED) for number in range(9)] + [("x.txt", "x")]
    found = problems(opened(make_tar(tmp_path / "a.tar", [*GOOD, *files])), most_shown=2)
    assert list(found.counts.items()) == [("it has no caption", 9), ("it has no picture", 1)]
    assert found.first["it has no caption"] == ("record 2: 0", "record 3: 1")
    assert str(found).splitlines()[:2] == ["10 of 12 records cannot be used", "9 x it has no caption"]


# --- broken archives ----------------------------------------------------------------------------------------------


def test_an_archive_that_is_cut_is_refused_wherever_it_is_cut(tmp_path):
    whole = make_tar(tmp_path / "whole.tar", GOOD).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # of the last member
    path = tmp_path / "cut.tar"
    for length in [*range(0, end, 64), end, end + 511]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"is damaged or cut short at byte [\d,]+"):
            opened(path)
    path.write_bytes(whole[: end + 512])
    assert len(opened(path)) == 2


def test_damage_between_members_is_not_taken_for_the_end(tmp_path):
    path = make_tar(tmp_path / "a.tar", GOOD)
    data = bytearray(path.read_bytes())
    data[1024:1030] = b"\1\2\3\4\5\6"  # the header of the second member
    path.write_bytes(data)
    with pytest.raises(InputError, match="cut short at byte 1,024") as caught:
        opened(path)
    assert "no header" in caught.value.actual


def test_a_size_below_zero_is_damage_and_no_endless_loop(tmp_path):
    member = tarfile.TarInfo("a.txt")
    member.size = -1024
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(InputError, match="is damaged or cut short"):
        opened(path)


@pytest.mark.parametrize(("kind", "program"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")])
def test_a_compressed_archive_is_refused_with_what_unpacks_it(tmp_path, kind, program):
    with pytest.raises(InputError, match="is compressed") as caught:
        opened(make_tar(tmp_path / "a.tar", GOOD, f"w:{kind}"))
    assert program in caught.value.hint


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(gzip.compress(b"x")[3:] * 999)
    with pytest.raises(InputError, match="damaged or cut short at byte 0"):
        opened(tmp_path / "a.tar")
    with pytest.raises(InputError, match="nothing to read"):
        opened(tmp_path / "none.tar")
    with pytest.raises(InputError, match="names no file"):
        TarConfig(paths=()).open()


@given(data=st.binary(max_size=4096))
def test_any_bytes_are_an_archive_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a.tar"
    path.write_bytes(data)
    try:
        assert list(documents(opened(path))) == []
    except InputError as error:
        assert "byte" in error.problem or "compressed" in error.problem


NAMES = ["size", "path", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map", "hdrcharset"]
LINES = st.tuples(st.sampled_from(NAMES), st.sampled_from(["-1", "1", "9" * 5000, "", "1,2,x", "BINARY", "\0"]))


@given(lines=st.lists(LINES, max_size=3), kind=st.sampled_from([b"x", b"g", b"L", b"S"]), size=st.integers(0, 2000))
def test_odd_headers_are_damage(tmp_path_factory, lines, kind, size):
    records = [f" {name}={value}\n".encode() for name, value in lines]
    payload = b"".join(b"%d" % (len(record) + len(str(len(record)))) + record for record in records)[:size]
    odd, plain = tarfile.TarInfo("odd"), tarfile.TarInfo("a.txt")
    odd.type, odd.size = kind, len(payload)
    path = tmp_path_factory.mktemp("odd") / "a.tar"
    whole = odd.tobuf(tarfile.GNU_FORMAT) + payload + bytes(-len(payload) % 512) + plain.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(whole + bytes(1024))
    try:
        opened(path)
    except InputError as error:
        assert "damaged or cut short at byte" in error.problem


def test_links_and_folders_are_no_members(tmp_path):
    path = make_tar(tmp_path / "a.tar", GOOD)
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("c.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert len(opened(path)) == 2


# --- the index ----------------------------------------------------------------------------------------------------


def spoil(path, at=1024):
    """Writes over a header, which no reader notices that trusts the index."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\1\2\3\4")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_archive_is_walked_once(tmp_path):
    path = make_tar(tmp_path / "a.tar", GOOD)
    before = list(documents(opened(path)))
    assert [each.name for each in tmp_path.glob("*.index")] == ["a.tar.captions-2.index"]
    spoil(path)
    source = opened(path)
    assert list(documents(source)) == before
    assert source.picture(PictureRef(place="1")) == RED
    os.utime(path)
    with pytest.raises(InputError, match="damaged"):
        opened(path)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 999])
def test_an_index_that_cannot_be_read_is_made_again(tmp_path, damage):
    path = make_tar(tmp_path / "a.tar", GOOD)
    before = list(documents(opened(path)))
    (index,) = tmp_path.glob("*.index")
    whole = index.read_bytes()
    index.write_bytes(damage)
    assert list(documents(opened(path))) == before
    assert index.read_bytes() == whole


def test_an_index_is_in_the_cache_where_it_cannot_be_beside(tmp_path, cache_dir):
    path = make_tar(tmp_path / "a.tar", GOOD)
    (tmp_path / "a.tar.captions-2.index").mkdir()
    before = list(documents(opened(path)))
    assert len(list((cache_dir / "indexes").iterdir())) == 1
    spoil(path)
    assert list(documents(opened(path))) == before


def test_an_archive_that_has_shrunk_is_noticed(tmp_path):
    path = make_tar(tmp_path / "a.tar", GOOD)
    source = opened(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(BadRecordError, match="has become shorter"):
        source.picture(PictureRef(place="1"))
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        source.picture(PictureRef(place="1"))


def test_threads_read_as_one_does(tmp_path):
    files = [
        file
        for number in range(200)
        for file in ((f"{number}.png", png(1 + number, 3)), (f"{number}.txt", f"picture {number}"))
    ]
    source = opened(make_tar(tmp_path / "a.tar", files))

    def read(index):
        document = source.document(index)
        return document, source.picture(document.pictures[0])

    alone = [read(index) for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, [*range(200)] * 5)) == alone * 5
    assert alone[7][1] == png(8, 3)


# --- several shards, and what is held out -------------------------------------------------------------------------


def test_shards_follow_one_another(tmp_path):
    for name in ("b", "a"):
        make_tar(tmp_path / f"{name}.tar", [("1.png", png(3, ord(name))), ("1.txt", name)])
    make_tar(tmp_path / "empty.tar", [])
    source = opened(tmp_path)
    assert [document.key for document in documents(source)] == ["a/1", "b/1"]
    assert [source.picture(document.pictures[0]) for document in documents(source)] == [png(3, 97), png(3, 98)]


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    path = make_tar(tmp_path / "a.tar", GOOD)
    copied = tmp_path / "other" / "b.tar"
    copied.parent.mkdir()
    shutil.copy(path, copied)
    changed = make_tar(tmp_path / "c.tar", [*GOOD[:3], ("a/2.txt", "owt"), GOOD[4]])
    longer = make_tar(tmp_path / "d.tar", [*GOOD[:4], ("a/2.png", RED + b"0")])
    one, same, *others = (opened(each).fingerprint for each in (path, copied, changed, longer))
    assert one == same
    others += [opened(path, caption_field="alt").fingerprint, opened(path, portion=Portion.TRAIN).fingerprint]
    assert len({one, *others}) == 5


@pytest.mark.parametrize("place", [0, 4_095, -4_096, -1])
def test_another_picture_of_the_same_size_changes_the_fingerprint(tmp_path, place):
    data = bytes(20_000)
    other = bytearray(data)
    other[place] = 1
    paths = [
        make_tar(tmp_path / f"{number}" / "a.tar", [("1.jpg", bytes(content)), ("1.txt", "x")])
        for number, content in enumerate((data, other))
    ]
    assert opened(paths[0]).fingerprint != opened(paths[1]).fingerprint


def test_a_byte_in_the_middle_of_a_picture_is_not_seen(tmp_path):
    """As it is documented: whoever makes it seen changes the words of `ends_of` too."""
    data = bytes(20_000)
    other = bytearray(data)
    other[10_000] = 1
    one, two = (
        make_tar(tmp_path / f"{number}" / "a.tar", [("1.jpg", bytes(content)), ("1.txt", "x")])
        for number, content in enumerate((data, other))
    )
    assert opened(one).fingerprint == opened(two).fingerprint


def test_a_group_is_held_out_as_a_whole(tmp_path):
    files = []
    for number in range(600):
        group = str(number % 150)
        files += [(f"{number}.png", RED), (f"{number}.txt", group), (f"{number}.json", f'{{"group": "{group}"}}')]
    path = make_tar(tmp_path / "a.tar", files)
    train, held_out = (opened(path, portion=portion) for portion in (Portion.TRAIN, Portion.HELD_OUT))
    captions = [{document.pieces[1] for document in documents(source)} for source in (train, held_out)]
    assert not captions[0] & captions[1]
    assert len(captions[0] | captions[1]) == 150
    assert len(train) + len(held_out) == 600
    assert 30 <= len(held_out) <= 90  # a tenth
    assert held_out.picture(held_out.document(0).pictures[0]) == RED


def test_without_a_group_a_folder_is_held_out_and_without_a_folder_a_key(tmp_path):
    def held_out(names):
        path = make_tar(
            tmp_path / "a.tar", [file for name in names for file in ((f"{name}.png", RED), (f"{name}.txt", "x"))]
        )
        return [document.key for document in documents(opened(path, portion=Portion.HELD_OUT))]

    folders = {key.split("/")[0] for key in held_out([f"{folder}/{number}" for folder in range(90) for number in "ab"])}
    assert folders == {str(folder) for folder in range(90) if Portion.HELD_OUT.takes(str(folder))}
    assert held_out([str(number) for number in range(90)]) == [key for key in map(str, range(90)) if key in folders]


def test_new_groups_move_no_old_ones():
    groups = [f"animals/{number}" for number in range(2000)]
    held_out = [group for group in groups if Portion.HELD_OUT.takes(group)]
    assert len(held_out) == 213  # the same for ever: what was trained on stays so
    assert all(Portion.TRAIN.takes(group) != Portion.HELD_OUT.takes(group) for group in groups)
    assert all(Portion.ALL.takes(group) for group in groups)
