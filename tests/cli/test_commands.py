"""Commands as people type them, with the real browser: files, output, exit status."""

import io
import json
import struct
import sys
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from lensmith.cli.app import app, run
from lensmith.data.sources import ShardsConfig
from lensmith.recipes.mixtures import MIXTURES
from tests.support.packages import make_npm_package
from tests.support.picture_server import GOOD, PictureServer

PAGE = "<!doctype html><body style='margin:0'><p style='color:#c00'>hello</p></body>"


@pytest.fixture
def lensmith(monkeypatch, capsys, tmp_path):
    """Runs a command line in this process, in an empty folder; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lensmith", *arguments])
        with pytest.raises(SystemExit) as caught:
            run(app)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


# --- render -------------------------------------------------------------------------------------------------------


def test_render_writes_pictures_and_measurements(lensmith):
    Path("a.html").write_text(PAGE)
    status, out, err = lensmith(
        "render", "a.html", "-o", "out", "--width", "300", "--height", "200", "--text", "--json"
    )
    assert status == 0, err
    record = json.loads(out)
    assert record["status"] == "rendered"
    assert sorted(record["outputs"]) == ["out/a.json", "out/a.png"]
    assert Image.open("out/a.png").size == (300, 200)
    (text,) = json.loads(Path("out/a.json").read_text())["texts"]
    assert (text["text"], text["colour"]) == ("hello", [204, 0, 0])


def test_render_tells_each_file_keeps_what_exists_and_ends_with_2_where_one_failed(lensmith):
    Path("a.html").write_text(PAGE)
    status, out, _ = lensmith("render", "a.html", "nowhere.html", "--out", "out")
    assert status == 2
    assert "a.html: rendered: out/a.png" in out
    assert "nowhere.html: failed: " in out
    Path("out/a.png").write_bytes(b"kept")
    assert lensmith("render", "a.html", "--out", "out")[0] == 0
    assert Path("out/a.png").read_bytes() == b"kept"
    assert lensmith("render", "a.html", "--out", "out", "--overwrite")[0] == 0
    assert Path("out/a.png").read_bytes() != b"kept"


def test_render_runs_scripts_only_when_asked(lensmith):
    Path("a.html").write_text(
        "<body style='background:#fff'><script>document.body.style.background='#00f'</script></body>"
    )
    colours = {}
    for name, options in {"off": [], "on": ["--scripts"]}.items():
        assert lensmith("render", "a.html", "--out", name, *options)[0] == 0
        colours[name] = Image.open(f"{name}/a.png").convert("RGB").getpixel((100, 100))
    assert colours == {"off": (255, 255, 255), "on": (0, 0, 255)}


def test_render_reads_what_lies_beside_a_page_and_says_what_it_did_not(lensmith):
    for folder in ("site/css", "site/pages"):
        Path(folder).mkdir(parents=True)
    Path("site/css/a.css").write_text("body{background:#0a0}")
    Path("site/index.html").write_text("<link rel=stylesheet href=css/a.css><img src=https://example.com/x.png><p>x")
    Path("site/pages/x.html").write_text("<link rel=stylesheet href=../css/a.css><p>x")
    pages, green, white = ("site/index.html", "site/pages/x.html"), (0, 170, 0), (255, 255, 255)
    runs = {
        "own": ([], [green, white]),
        "root": (["--assets-root", "site"], [green, green]),
        "none": (["--no-assets"], [white, white]),
    }
    outs = {}
    for name, (options, expected) in runs.items():
        status, outs[name], _ = lensmith("render", *pages, "--out", name, *options)
        pictures = [Image.open(f"{name}/{stem}.png").convert("RGB") for stem in ("index", "x")]
        assert (status, [picture.getpixel((600, 600)) for picture in pictures]) == (0, expected)
    assert "\n  not loaded, on a server, and none is asked: https://example.com/x.png\n" in outs["own"]
    assert (
        "above the folder that the page may read (an assets root that holds both lets it): ../css/a.css" in outs["own"]
    )
    assert "above" not in outs["root"]
    assert "not loaded" not in outs["none"]
    record = json.loads(lensmith("render", pages[1], "--out", "json", "--json")[1])
    assert record["notes"] == [{"kind": "not-loaded", "reason": "above", "count": 1, "addresses": ["../css/a.css"]}]


def test_render_refuses_folders_that_cannot_be_meant(lensmith):
    Path("a.html").write_text(PAGE)
    for options, words in (
        (["--no-assets", "--assets-root", "."], "exclude each other"),
        (["--assets-root", "a.html"], "is no folder"),
    ):
        status, _, err = lensmith("render", "a.html", "--out", "out", *options)
        assert (status, words in err) == (2, True)
    Path("other").mkdir()
    status, out, _ = lensmith("render", "a.html", "--out", "out", "--assets-root", "other")
    assert (status, "does not lie in the folder that it may read" in out) == (2, True)


# --- html: pictures that cannot be used ---------------------------------------------------------------------------


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def truncated() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((100, 100), 50).save(buffer, "PNG")
    return buffer.getvalue()[:2000]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"just text", "is not a picture"),
        (truncated(), "damaged or cut short"),
        (bomb(), "too large"),
        (None, "cannot read"),
    ],
    ids=["empty", "text", "truncated", "bomb", "missing"],
)
def test_html_names_what_is_wrong_with_a_picture(lensmith, content, words):
    if content is not None:
        Path("page.png").write_bytes(content)
    status, out, err = lensmith("html", "page.png", "-o", "page.html", "--json")
    assert status == 2
    assert out == ""
    assert err.startswith("lensmith: ")
    assert words in err
    assert "page.png" in err
    assert not Path("page.html").exists()


def test_html_without_a_model_says_where_it_looked(lensmith):
    Image.new("RGB", (64, 64)).save("page.png")
    status, out, err = lensmith("html", "page.png", "-o", "page.html", "--model", "no/such/model")
    assert (status, out) == (2, "")
    assert "no/such/model" in err


# --- train, data --------------------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_named(lensmith):
    status, _, err = lensmith("train", "sightseer_nanoo")
    assert status == 2
    assert "sightseer_nano" in err
    assert not Path("runs").exists()


def test_data_pages_writes_shards_and_counts(lensmith):
    status, out, err = lensmith("data", "pages", "-o", "shards", "--count", "3", "--shard-pages", "2", "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["pages"] == 3
    rows = [pq.read_table(path).num_rows for path in record["shards"]]
    assert rows == [2, 1]
    assert "3/3" in err


def test_data_pages_writes_the_pages_of_packages_and_counts_what_is_left_out(lensmith, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    page = "<html><body>" + "<div><h3>Some words</h3><p>More words</p></div>" * 30 + "</body></html>"
    name = make_npm_package(Path("cache/lensmith"), {"a.html": page, "b.html": page, "c.html": "<p>part</p>"})
    status, out, err = lensmith("data", "pages", name, "--out", "pages")
    assert status == 0, err
    assert "themes 1.0.0 (MIT): 1 of 3 pages" in out
    assert "left out, nearly the same markup as another page: 1" in out
    assert "1/1" in err
    assert sorted(path.name for path in Path("pages").iterdir()) == ["pages.json", "themes--a.html"]
    status, out, _ = lensmith("data", "pages", name, "npm:no/package", "--out", "pages", "--json")
    assert (status, out) == (2, "")
    status, out, _ = lensmith("data", "pages", name, "--out", "pages", "--json")
    assert (status, json.loads(out)["packages"][0]["pages"][0]["path"]) == (0, "a.html")


def test_data_mixtures_prints_trees_with_shares_and_hashes(lensmith):
    status, out, _ = lensmith("data", "mixtures")
    assert status == 0
    assert [line.partition(":")[0] for line in out.splitlines() if "mixture by" in line] == list(MIXTURES)
    status, out, _ = lensmith("data", "mixtures", "mm1", "--json")
    (shown,) = json.loads(out)["mixtures"].values()
    assert (status, shown["hash"], shown["shares"]["text"]) == (0, MIXTURES["mm1"].hash, 0.1)
    status, out, err = lensmith("data", "mixtures", "mm2")
    assert (status, out) == (2, "")
    assert "mm1_5" in err


def test_pictures_are_fetched_and_documents_packed(lensmith, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    with PictureServer() as base:
        infos = [
            {"image_name": f"{place}.png", "raw_url": f"{base}/{path}", "matched_text_index": place}
            for place, path in enumerate(("good", "status/404"))
        ]
        records = [{"text_list": ["a", "b"], "image_info": infos}, {"text_list": ["c"], "image_info": infos[1:]}]
        Path("docs.jsonl").write_text("\n".join(map(json.dumps, records)))
        fetching = ("data", "fetch-pictures", "mmc4", "docs.jsonl", "--out", "pictures")
        status, out, err = lensmith(*fetching, "--json")
        assert status == 0, err
        assert json.loads(out)["outcomes"] == {"refused": 2}, "this machine is not asked"
        status, out, err = lensmith(*fetching[:-1], "others", "--allow-private")
        assert status == 0, err
        assert out.splitlines() == ["2 addresses, 0 of them known before", f"  {1:>9} ok", f"  {1:>9} gone"]
    packing = ("data", "pack-shards", "mmc4", "docs.jsonl", "--pictures", "others", "--out", "shards")
    status, out, err = lensmith(*packing, "--set", "side=behind")
    assert status == 0, err
    assert out.splitlines()[0].startswith("1 of 2 documents with 1 pictures in 1 shards")
    assert "1 left out: a picture of it is matched to no sentence" in out
    source = ShardsConfig(paths=(Path("shards"),)).open()
    first, picture, last = source.document(0).pieces
    assert (first, source.picture(picture), last) == ("a", GOOD, "b")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("fetch-pictures", "jsonl", "a.jsonl"), "names no addresses"),
        (("fetch-pictures", "mmc", "a.jsonl"), "no such kind of source"),
        (("pack-shards", "mmc4", "a.jsonl"), "nothing to read"),
        (("pack-shards", "jsonl", ".", "--set", "feild=a"), "field"),
        (("pack-shards", "jsonl", ".", "--pictures", "."), "pictures"),
    ],
)
def test_what_cannot_be_fetched_or_packed_is_said(lensmith, arguments, problem):
    status, _, err = lensmith("data", *arguments, "--out", "out")
    assert status == 2
    assert problem in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["npm:themes", "--count", "3"], "--count says nothing of real pages"),
        (["npm:themes", "--shard-pages", "3"], "--shard-pages says nothing of real pages"),
        (["--most", "3"], "--most says nothing of generated pages"),
    ],
)
def test_data_pages_takes_no_option_of_the_other_kind(lensmith, arguments, problem):
    status, _, err = lensmith("data", "pages", *arguments, "--out", "pages")
    assert status == 2
    assert problem in err
    assert not Path("pages").exists()
