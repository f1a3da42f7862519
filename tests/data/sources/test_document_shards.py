"""Any source's documents in archives: what is read is what was packed, and what was stopped goes on."""

import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensmith.core.errors import InputError
from lensmith.data.documents import BadRecordError, Conversation, ConversationTurn, Document, PictureRef, documents
from lensmith.data.sources.base import Portion, problems
from lensmith.data.sources.obelics import ObelicsConfig
from lensmith.data.sources.shards import ShardsConfig, pack_shards
from lensmith.data.sources.tars import TarConfig
from tests.support.documents import MemorySource, picture
from tests.support.packages import png
from tests.support.tars import make_tar


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


class Mixed(MemorySource):
    """Documents and conversations."""

    @property
    def fingerprint(self):
        return f"of {len(self.records)} records"

    def document(self, index):
        record = self.records[index]
        return record if isinstance(record, Conversation) else super().document(index)


RED, BLUE = PictureRef(place="red"), PictureRef(place="blue")
TALK = Conversation(
    key="talk",
    turns=(
        ConversationTurn(role="system", pieces=("Be short.",)),
        ConversationTurn(role="user", pieces=(RED, "What?\n\n\u2028é", BLUE)),
        ConversationTurn(role="assistant", pieces=("A square.",)),
    ),
)
SOURCE = Mixed([("a ", "<red>", " b\n", "<blue>", "<red>"), TALK, ("text alone",), ("<blue>",), ("x", "y")])


def content(source):
    """Everything that a source gives: keys, texts and bytes."""
    found = []
    for document in documents(source):
        turns = getattr(document, "turns", None)
        speakers = [(turn.role, len(turn.pieces)) for turn in turns] if turns else None
        pieces = [source.picture(piece) if isinstance(piece, PictureRef) else piece for piece in document.pieces]
        found.append((type(document), document.key, speakers, pieces))
    return found


def test_what_is_read_is_what_was_packed(tmp_path):
    report = pack_shards(SOURCE, tmp_path)
    packed = ShardsConfig(paths=(tmp_path,)).open()
    assert content(packed) == content(SOURCE)
    assert (report.documents, report.pictures, report.shards, report.bad) == (5, 6, 1, {})
    with tarfile.open(tmp_path / "00000.tar") as archive:
        names = archive.getnames()
    assert names[:4] == ["00000000.json", "00000000.0.png", "00000000.1.png", "00000000.2.png"]


def test_other_sources_go_round_too(tmp_path):
    jpeg = picture("green", 40, "JPEG")
    tar = make_tar(tmp_path / "a.tar", [("k/1.jpg", jpeg), ("k/1.txt", "ä"), ("k/2.png", png(3, 2)), ("k/2.txt", "b")])
    source = TarConfig(paths=(tar,)).open()
    pack_shards(source, tmp_path / "packed")
    assert content(ShardsConfig(paths=(tmp_path / "packed",)).open()) == content(source)


@pytest.mark.parametrize("shard_bytes", [1, 4_000, 9_000])
def test_a_shard_holds_so_much_or_one_document(tmp_path, shard_bytes):
    pack_shards(SOURCE, tmp_path, shard_bytes=shard_bytes)
    shards = sorted(tmp_path.glob("*.tar"))
    sizes = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            members = archive.getmembers()
        sizes.append(sum(512 + -(-member.size // 512) * 512 for member in members))
        assert sizes[-1] <= shard_bytes or len({member.name.split(".")[0] for member in members}) == 1
    assert len(shards) == 5 if shard_bytes == 1 else len(shards) < 5
    assert content(ShardsConfig(paths=(tmp_path,)).open()) == content(SOURCE)


def test_bad_records_are_left_out_counted_and_listed(tmp_path):
    source = Mixed([("a",), "no text", ("<broken>", "b"), "no text", ("c",), "no text"])
    report = pack_shards(source, tmp_path, shard_bytes=1)
    assert report.bad == {"no text": 3, "the picture is not a picture that can be read": 1}
    assert report.records == 6
    lines = [json.loads(line) for line in (tmp_path / "packed.jsonl").read_text().splitlines()]
    assert [bad[:2] for line in lines[1:] for bad in line["bad"]] == [
        [1, "no text"],
        [2, "the picture is not a picture that can be read"],
        [3, "no text"],
        [5, "no text"],
    ]
    assert [document.pieces for document in documents(ShardsConfig(paths=(tmp_path,)).open())] == [("a",), ("c",)]
    assert "3 left out: no text" in str(report)


def test_packing_that_was_stopped_goes_on_and_gives_the_same(tmp_path):
    pack_shards(SOURCE, tmp_path / "whole", shard_bytes=4_000)
    read = []

    class Stopped(Mixed):
        def document(self, index):
            read.append(index)
            if index == 3 and len(read) == 4:
                raise KeyboardInterrupt
            return super().document(index)

    source = Stopped(SOURCE.records)
    with pytest.raises(KeyboardInterrupt):
        pack_shards(source, tmp_path / "stopped", shard_bytes=4_000)
    before = sorted(path.name for path in (tmp_path / "stopped").iterdir())
    pack_shards(source, tmp_path / "stopped", shard_bytes=4_000)
    assert "00000.tar" in before
    assert 0 not in read[4:], "what was whole is not packed again"
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "stopped" / path.name).read_bytes() == path.read_bytes()
    count = len(read)
    pack_shards(source, tmp_path / "stopped", shard_bytes=4_000)
    assert len(read) == count


def test_a_folder_of_another_source_or_size_is_refused(tmp_path):
    pack_shards(SOURCE, tmp_path)
    other = Mixed(SOURCE.records[:1])
    for source, size in ((other, 256 << 20), (SOURCE, 1000)):
        with pytest.raises(InputError, match="packed from something else"):
            pack_shards(source, tmp_path, shard_bytes=size)
    (tmp_path / "packed.jsonl").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        pack_shards(SOURCE, tmp_path)


def rewritten(path, change):
    """The same archive with some members' content changed."""
    with tarfile.open(path) as archive:
        files = [(member.name, archive.extractfile(member).read()) for member in archive.getmembers()]
    make_tar(path, [(name, change(name, data)) for name, data in files])


def test_another_picture_of_the_same_size_is_seen(tmp_path):
    big = {colour: picture(colour, 900, "BMP") for colour in ("red", "blue")}
    middle = bytearray(big["red"])
    middle[len(middle) // 2] ^= 1

    class Big(Mixed):
        def picture(self, ref):
            return big[ref.place]

    pack_shards(Big([("<red>", "a")]), tmp_path)
    path = tmp_path / "00000.tar"
    before = ShardsConfig(paths=(path,)).open()
    ref = before.document(0).pictures[0]
    assert before.picture(ref) == big["red"]
    rewritten(path, lambda name, data: big["blue"] if name.endswith("bmp") else data)
    after = ShardsConfig(paths=(path,)).open()
    assert after.fingerprint != before.fingerprint
    with pytest.raises(BadRecordError, match="not the one that was packed"):
        after.picture(ref)
    # What the fingerprint does not see, a byte in the middle, is seen when the picture is read.
    rewritten(path, lambda name, data: bytes(middle) if name.endswith("bmp") else data)
    assert problems(ShardsConfig(paths=(path,)).open()).counts == {"a picture is not the one that was packed": 1}


ODD = {
    "its JSON cannot be read": [("1.json", "{")],
    "its record is none of a packed document": [
        ("1.json", "[]"),
        ("2.json", '{"key": 7}'),
        ("3.json", '{"key": "a"}'),
        ("4.json", '{"key": "a", "pieces": [7]}'),
        ("5.json", '{"key": "a", "turns": [{"pieces": []}]}'),
        ("6.json", '{"key": "a", "pieces": [{"picture": "0.png"}]}'),
        ("7.json", '{"key": "a", "pieces": "text"}'),
        ("8.json", '{"key": "a", "pieces": []}'),
        ("9.json", '{"key": "a", "pieces": [{"picture": "a/b.png", "sha256": ""}]}'),
    ],
    "it has no record": [("1.0.png", png(2, 2))],
    "its key stands twice": [("1.json", "{}"), ("1.json", "{}")],
    "a picture is not in its archive": [("1.json", '{"key": "a", "pieces": [{"picture": "0.png", "sha256": ""}]}')],
    "its conversation is empty": [("1.json", '{"key": "a", "turns": []}')],
}


@pytest.mark.parametrize("cause", ODD)
def test_an_odd_record_costs_itself_and_says_its_cause(tmp_path, cause):
    good = ("0.json", '{"key": "good", "pieces": ["x"]}')
    path = make_tar(tmp_path / "a.tar", [good, *ODD[cause]])
    source = ShardsConfig(paths=(path,)).open()
    names = {name.split(".")[0] for name, _ in ODD[cause]}
    assert problems(source).counts == {cause: len(names)}
    assert Document(key="good", pieces=("x",)) in documents(source)


def test_portions_share_no_key(tmp_path):
    class Many(Mixed):
        def document(self, index):
            return Document(key=f"group {index}", pieces=("x",))

    pack_shards(Many([()] * 300), tmp_path)
    train, held_out = (
        {document.key for document in documents(ShardsConfig(paths=(tmp_path,), portion=portion).open())}
        for portion in (Portion.TRAIN, Portion.HELD_OUT)
    )
    assert held_out == {f"group {index}" for index in range(300) if Portion.HELD_OUT.takes(f"group {index}")}
    assert len(train) + len(held_out) == 300


def test_obelics_are_packed_with_their_pictures(tmp_path):
    one = png(7, 7)
    table = pa.table({"images": pa.array([[None, one]], pa.list_(pa.binary())), "texts": [["a", None]]})
    pq.write_table(table, tmp_path / "a.parquet")
    pack_shards(ObelicsConfig(paths=(tmp_path / "a.parquet",)).open(), tmp_path / "packed")
    assert content(ShardsConfig(paths=(tmp_path / "packed",)).open())[0][3] == ["a", one]
