"""HTML documents as text and pictures in reading order."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import ConfigError, InputError
from lensmith.data.documents import PictureRef, documents
from lensmith.data.sources.base import Portion, problems
from lensmith.data.sources.pages import PageContent, PageReadingConfig, PagesConfig, read_page
from tests.support.packages import png
from tests.support.tars import make_tar


@pytest.fixture(autouse=True)
def _own_cache(cache_dir):
    pass


def read(html):
    """Pieces, pictures as their addresses in angle brackets."""
    pieces = read_page(html.encode() if isinstance(html, str) else html, lambda address: address or None)
    return [f"<{piece.place}>" if isinstance(piece, PictureRef) else piece for piece in pieces]


@pytest.mark.parametrize(
    ("html", "pieces"),
    [
        ("<p>one <b>bold</b>\n word</p><p>two</p>", ["one bold word\ntwo"]),
        ("<h1>Title</h1>text<ul><li>a<li>b</ul>end", ["Title\ntext\na\nb\nend"]),
        ("<p>a<br>b<hr>c", ["a\nb\nc"]),
        ("<table><tr><th>a</th><td>b</td></tr><tr><td>c<td>d</table>", ["a b\nc d"]),
        ("<pre>if x:\n    y   = 1\n</pre><p>a   b", ["if x:\n    y   = 1\na b"]),
        ("<p>Fig&nbsp;1.&nbsp; x &amp; y&#228;", ["Fig 1. x & yä"]),
        ("<p>a<img src=1.png>b", ["a", "<1.png>", "b"]),
        ("<p><img src=1.png><img src=2.png><p> </p>", ["<1.png>", "<2.png>"]),
        ("<p>a<img alt='not text'>b", ["ab"]),
        ("<title>t</title><style>p{}</style><p>a<script>s()</script>b<template>t</template>", ["ab"]),
        ("<p>a<noscript>x</noscript><svg><text>x</text></svg><math><mi>x</mi></math>b", ["ab"]),
        ("<nav>x</nav><p>a<div role='navigation'>x</div><div class='a navheader'>x</div>", ["a"]),
        ("<p>a<span hidden>x</span><span style='color:red; DISPLAY : none'>x</span>b", ["ab"]),
        ("<h1>1. A<a class='headerlink' href='#'>¶</a></h1>", ["1. A"]),
        ("<form><p>a<button>x</button><select><option>x</select><textarea>x</textarea></form>", ["a"]),
        ("a<!-- x -->b<?x?>c", ["abc"]),
        ("<p>navigation of ships <b class='navy'>b</b>", ["navigation of ships b"]),
        ("", []),
        ("<p hidden>x", []),
        ("<meta charset=latin1><p>\xe4".encode("latin1"), ["ä"]),
        (b"\xff\xfe<\0p\0>\0a\0", ["a"]),
    ],
)
def test_what_is_read_of_a_page(html, pieces):
    assert read(html) == pieces


def test_depth_is_no_danger():
    assert read("<div>" * 5_000 + "deep") == ["deep"]


TAGS = st.sampled_from(
    "p div b a table tr td ul li img pre br svg math select form nav template frameset body h1".split()
)
MARKUP = st.one_of(
    TAGS.map(lambda tag: f"<{tag}>"), TAGS.map(lambda tag: f"</{tag}>"), st.text(max_size=9), st.just("<img src=a>")
)


@given(parts=st.lists(MARKUP, max_size=40))
def test_any_markup_is_read(parts):
    pieces = read_page("".join(parts).encode("utf-8", "replace"), lambda address: address or None)
    texts = [piece for piece in pieces if isinstance(piece, str)]
    assert all(text.strip() for text in texts)
    assert not any(isinstance(one, str) and isinstance(next_one, str) for one, next_one in pairwise(pieces))


# --- folders and archives -----------------------------------------------------------------------------------------

PAGES = {
    "b/two.html": "<p>two<img src='../a/big.png'><img src='/a/icon.png'><img src='/a/big.png?v=1#x'>end",
    "a/one.htm": "<p>one<img src=big.png><img src=none.png><img src=broken.png><img src=drawn.svg><img src=b%69g.png>",
    "a/empty.html": "<img src=big.png>",
    "a/big.png": png(80, 64),
    "a/icon.png": png(300, 63),
    "a/broken.png": "no picture",
    "a/drawn.svg": "<svg xmlns='http://www.w3.org/2000/svg' width='99' height='99'/>",
    "a/notes.txt": "x",
}
BIG = PictureRef(place="a/big.png")
READ = [("a/one.htm", ("one", BIG, BIG)), ("b/two.html", ("two", BIG, BIG, "end"))]


def folder(tmp_path, files=PAGES):
    for name, content in files.items():
        path = tmp_path / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path / "pages"


def places(tmp_path):
    return [folder(tmp_path), make_tar(tmp_path / "pages.tar", PAGES.items())]


@pytest.mark.parametrize("which", [0, 1], ids=["folder", "archive"])
def test_pages_in_a_folder_or_an_archive(tmp_path, which):
    source = PagesConfig(path=places(tmp_path)[which]).open()
    assert [(document.key, document.pieces) for document in documents(source)] == READ
    assert source.picture(BIG) == PAGES["a/big.png"]
    assert problems(source).counts == {"it has too little text": 1}


def test_text_alone_and_other_limits(tmp_path):
    path = folder(tmp_path)
    text = PagesConfig(path=path, reading=PageReadingConfig(content=PageContent.TEXT)).open()
    assert [document.pieces for document in documents(text)] == [("one",), ("twoend",)]
    small = PagesConfig(path=path, reading=PageReadingConfig(least_px=63, least_characters=6)).open()
    assert [document.pieces for document in documents(small)] == [
        ("two", BIG, PictureRef(place="a/icon.png"), BIG, "end")
    ]
    assert len({source.fingerprint for source in (text, small, PagesConfig(path=path).open())}) == 3
    with pytest.raises(ConfigError, match="must be positive"):
        PageReadingConfig(least_px=0)


@pytest.mark.parametrize(
    "address",
    ["/etc/secret.png", "../../outside.png", "file:///outside.png", "file:/big.png", "https://example.org/big.png",
     "//a/big.png", "link.png", "data:image/png;base64,AAAA", "http://[", "big.png\0", "", "?big.png"],
)  # fmt: skip
def test_a_page_names_no_file_outside(tmp_path, address):
    (tmp_path / "outside.png").write_bytes(png(99, 99))
    path = folder(tmp_path, {"a.html": f"<p>text<img src='{address}'>", "big.png": png(99, 99)})
    (path / "link.png").symlink_to(tmp_path / "outside.png")
    (path / "loop.png").symlink_to("loop.png")
    assert PagesConfig(path=path).open().document(0).pieces == ("text",)


def test_a_page_of_any_size_costs_itself(tmp_path):
    pages = {"a.html": "<p>a", "b.html": "x" * (5 << 20), "c.html": "<b>" * 30_000}
    assert problems(PagesConfig(path=folder(tmp_path, pages)).open()).counts == {"its page is empty or too large": 2}


def test_what_holds_no_page_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no page"):
        PagesConfig(path=folder(tmp_path, {"a.png": png(1, 1)})).open()
    with pytest.raises(InputError, match="cannot read"):
        PagesConfig(path=tmp_path / "none").open()


def test_a_page_is_held_out_or_trained_on(tmp_path):
    path = make_tar(tmp_path / "a.tar", [(f"{number}.html", f"<p>{number}") for number in range(300)])
    keys = [
        {document.key for document in documents(PagesConfig(path=path, portion=portion).open())}
        for portion in (Portion.TRAIN, Portion.HELD_OUT)
    ]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 300
    assert 15 <= len(keys[1]) <= 45


def test_the_fingerprint_is_that_of_the_pages(tmp_path):
    one, two = (PagesConfig(path=path).open().fingerprint for path in places(tmp_path))
    changed = PAGES | {"a/one.htm": PAGES["a/one.htm"].replace("one", "eno")}
    assert PagesConfig(path=folder(tmp_path, changed)).open().fingerprint != one
    assert PagesConfig(path=make_tar(tmp_path / "b.tar", changed.items())).open().fingerprint != two


def test_threads_read_pages_as_one_does(tmp_path):
    pages = [(f"{number}.html", f"<p>{number}<img src=p.png>") for number in range(40)]
    path = make_tar(tmp_path / "a.tar", [("p.png", png(70, 70)), *pages])
    alone = list(documents(PagesConfig(path=path).open()))
    source = PagesConfig(path=path).open()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.document, range(40))) == alone
