"""A page from a file reads its own folder as a browser would, and nothing else."""

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.core.errors import ConfigError, InputError
from lensmith.core.types import MissingGlyphs, NotLoaded
from lensmith.render import Assets, Capture, HtmlFile, RenderConfig, Renderer, Scripts
from lensmith.render.assets import MAX_ADDRESSES, AssetDoor
from tests.support.opened import decoded, file_browser, opened_in

WIDTH_PX, HEIGHT_PX = 400, 300
WINDOW = RenderConfig(viewport_width_px=WIDTH_PX, viewport_height_px=HEIGHT_PX, timeout_s=30.0)
GREEN, RED = (0, 160, 0), (255, 0, 0)
DOT = (
    "<svg xmlns='http://www.w3.org/2000/svg' width='60' height='60'><rect width='60' height='60' fill='#00a000'/></svg>"
)
SECRET = "vermilion-otter-4711"
HEAD = "<!doctype html><meta charset=utf-8><style>body{margin:0;font:16px/20px sans-serif}</style>"
PICTURES = ("there.png", "ä b.png", "a%20b.png", "a#b.png", "50%.png", "deep/inner/there.png", "q?.png")


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 60), colour).save(path, "PNG")


def font_file():
    listed = subprocess.run(
        ["fc-match", "-f", "%{file}", "Liberation Mono"], capture_output=True, text=True, check=True
    )
    assert "LiberationMono" in listed.stdout, "scripts/install_fonts installs it"
    return Path(listed.stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what pages have beside them."""
    folder = tmp_path_factory.mktemp("some site") / "Web ü"
    for name in PICTURES:
        paint(folder / name, GREEN)
    (folder / "dot.svg").write_text(DOT)
    texts = {
        "there.css": "body{background:rgb(0,160,0)}",
        "css/deep/far.css": "p{background:url('../../deep/inner/there.png?v=3#x')}",
        "css/main.css": "@import 'deep/far.css'; @import url(../there.css); li{list-style-image:url(../dot.svg)}",
        "css/ünter lage.css": "p{background:url(../%C3%A4%20b.png)}",
        "font.css": "@font-face{font-family:own;src:url(nowhere.eot?#iefix),url(fonts/mono.ttf)} p{font-family:own}",
        "latin.css": '@charset "iso-8859-1"; p::before{content:"caf\xe9 "}',
        "inherits.css": 'p::before{content:"caf\xe9 "}',
        "deep/inner/frame.html": "<meta charset=utf-8><link rel=stylesheet href=../../there.css><p>Främe",
        "deep/inner/words.txt": "plain words, größer",
        "deep/base.css": "p{background:url(inner/there.png)}",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="latin-1" if name in ("latin.css", "inherits.css") else "utf-8")
    (folder / "fonts").mkdir()
    shutil.copy(font_file(), folder / "fonts/mono.ttf")
    return folder


@pytest.fixture(scope="module")
def opened():
    with file_browser(WIDTH_PX, HEIGHT_PX) as shot:
        yield shot


def render(renderer, path, root=None, capture=Capture.PICTURE | Capture.TEXTS, **limits):
    return renderer.render(path.read_bytes(), capture, assets=Assets(root=root or path.parent, page=path, **limits))


def refused(page):
    return {note.reason: note.addresses for note in page.notes if isinstance(note, NotLoaded)}


# --- what works as in a browser that opens the file -------------------------------------------------------------------

SHOWN = {
    "a stylesheet": "<link rel=stylesheet href=there.css><p>x",
    "a stylesheet with a query": "<link rel=stylesheet href='there.css?v=2&amp;w=..'><p>x",
    "a stylesheet with a fragment": "<link rel=stylesheet href='./there.css#part'><p>x",
    "imports, nested": "<link rel=stylesheet href=css/main.css><ul><li>x</ul><p style='height:90px'>x",
    "an import in the page": "<style>@import 'css/../there.css';</style><p>x",
    "a name with a space and an umlaut": "<link rel=stylesheet href='css/ünter lage.css'><p style='height:60px'>x",
    "a picture": "<img src=there.png>",
    "pictures of odd names": "<img src='ä b.png'><img src=a%2520b.png><img src='a%23b.png'><img src=50%25.png>"
    "<img src='q%3f.png'>",
    "a name half encoded": "<img src='%C3%A4 b%2epng'>",
    "nested folders, and up again": "<img src=deep/../deep/inner/./there.png><img src='deep\\inner\\there.png'>",
    "up and down through its own folder": "<img src='../Web ü/there.png'><img src='../Web%20%c3%bc/dot.svg'>",
    "srcset": "<img srcset='nowhere.png 3x, there.png 1x'>"
    "<picture><source srcset=dot.svg><img src=nowhere.png></picture>",
    "lazy, below the window": "<p style='height:9000px'>x</p><img loading=lazy src=there.png>",
    "svg": "<img src=dot.svg><svg width=60 height=60><image href=there.png width=60 /></svg>"
    "<p style='background:url(dot.svg)'>x",
    "use of another file": "<svg width=60 height=60><use href='dot.svg#a'/></svg>x",
    "a mask": "<p style='width:60px;height:60px;background:#00a000;mask-image:url(dot.svg)'>",
    "old attributes": "<body background=there.png><table background=dot.svg><tr><td>x</table>",
    "an input of type image": "<input type=image src=there.png>",
    # Without its controls, which turn while it loads.
    "a poster": "<style>video::-webkit-media-controls{display:none!important}</style>"
    "<video poster=there.png width=60 height=60></video>",
    "crossorigin": "<img crossorigin src=there.png><link rel=stylesheet crossorigin href=there.css>",
    "a font": "<link rel=stylesheet href=font.css><p>mono WiWi mono</p>",
    "a font in the page": "<style>@font-face{font-family:own;src:url('fonts/mono.ttf')}p{font-family:own,serif}</style>"
    "<p>mono WiWi mono</p>",
    "stylesheets in their encodings": "<link rel=stylesheet href=latin.css><p>x",
    "a base in the folder": "<base href='deep/'><link rel=stylesheet href=base.css><img src='inner/there.png'><p>x",
    "a base outside": "<base href='https://example.com/'><link rel=stylesheet href=there.css><img src=there.png>x",
    "a base at the root": "<base href='/'><img src=there.png>x",
    "a frame": "<iframe src='deep/inner/frame.html' width=200 height=100></iframe>",
    "a frame of text": "<iframe src='deep/inner/words.txt' width=200 height=100></iframe>",
    "a picture in a frame": "<iframe src=dot.svg width=200 height=100></iframe>",
    "a frame in the page": '<iframe srcdoc="<img src=there.png>"></iframe>',
    "objects": "<object data=dot.svg type=image/svg+xml></object><object data=there.png>no</object>"
    "<object data=deep/inner/frame.html width=90 height=50></object><embed src=dot.svg><embed src=there.png>",
    "an object that is missing": "<object data=nowhere.svg>instead</object><img src=nowhere.png alt=words>",
    "a file that is no stylesheet by its name": "<link rel=stylesheet href=deep/inner/words.txt><p>x",
    "no stylesheet asked for": "<link rel='alternate stylesheet' title=x href=there.css>"
    "<link rel=icon href=there.png>x",
    "a stylesheet for print": "<link rel=stylesheet media=print href=there.css>x",
    "scripts": "<script src=there.js></script><noscript><img src=there.png></noscript>",
    "itself": "<img src=page.html alt=words><link rel=stylesheet href=page.html><iframe src=page.html></iframe>x",
}


@pytest.mark.parametrize("name", SHOWN)
def test_pixels_are_those_of_a_browser_that_opens_the_file(name, site, renderer, opened):
    (site / "page.html").write_text(HEAD + SHOWN[name], encoding="utf-8")
    page = render(renderer, site / "page.html")
    assert np.array_equal(decoded(page.png), opened(site / "page.html"))


@pytest.mark.parametrize(
    "name",
    ["a stylesheet", "imports, nested", "a picture", "pictures of odd names", "srcset", "svg", "a frame", "objects"],
)
def test_what_is_beside_the_file_is_seen(name, site, renderer):
    """That both browsers show the same would also hold if both showed nothing."""
    (site / "page.html").write_text(HEAD + SHOWN[name], encoding="utf-8")
    page = render(renderer, site / "page.html")
    greens = (decoded(page.png) == GREEN).all(axis=2).sum()
    assert greens >= 60 * 60 * max(1, SHOWN[name].count("<img"))
    closed = renderer.render((site / "page.html").read_bytes())
    assert not (decoded(closed.png) == GREEN).all(axis=2).any()


def test_a_font_is_seen_and_gone_without_its_file(site, renderer):
    (site / "page.html").write_text(HEAD + SHOWN["a font"], encoding="utf-8")
    (site / "same.html").write_text(HEAD + "<p style='font-family:Liberation Mono'>mono WiWi mono</p>")
    own, same = (render(renderer, site / name) for name in ("page.html", "same.html"))
    assert own.texts == same.texts
    assert renderer.render((site / "page.html").read_bytes()).texts != own.texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "windows-1252", "utf-16"])
def test_the_file_and_its_stylesheet_are_read_in_their_own_encoding(encoding, site, renderer, opened):
    declared = encoding.removesuffix("-sig")
    html = f"<!doctype html><meta charset={declared}><link rel=stylesheet href='css/ünter lage.css'>"
    html += "<link rel=stylesheet href=inherits.css charset=iso-8859-1><p style='height:60px'>Größe – „naïve“"
    (site / "page.html").write_bytes(html.encode(encoding))
    page = render(renderer, site / "page.html")
    assert [block.text for block in page.texts] == ["Größe – „naïve“"]
    assert page.notes == ()
    assert np.array_equal(decoded(page.png), opened(site / "page.html"))


def test_texts_in_a_frame_are_measured(site, renderer):
    (site / "page.html").write_text(HEAD + "<p>before</p>" + SHOWN["a frame"], encoding="utf-8")
    assert [block.text for block in render(renderer, site / "page.html").texts] == ["before", "Främe"]


def test_icons_of_a_font_beside_the_file_are_missing_only_without_it(site, renderer):
    css = "@font-face{font-family:own;src:url(fonts/mono.ttf);font-weight:900}"
    css += "i::before{font:900 16px own;content:'\\2502'} b::before{font-family:own;content:'\\f015'}"
    (site / "icons.css").write_text(css)
    (site / "page.html").write_text(HEAD + "<link rel=stylesheet href=icons.css><i></i> <b></b>")
    assert render(renderer, site / "page.html").notes == (MissingGlyphs(count=1, characters="\uf015"),)


def test_scripts_beside_the_file_run_only_when_asked(tmp_path, renderer):
    (tmp_path / "there.js").write_text("document.body.style.background = 'rgb(0,160,0)'")
    (tmp_path / "main.js").write_text("import('./more.js')")
    (tmp_path / "more.js").write_text("document.body.append('imported')")
    (tmp_path / "data.json").write_text(f'"{SECRET}"')
    (tmp_path / "page.html").write_text(
        f"{HEAD}<body><script src='there.js?v=1'></script><script type=module src=main.js></script>"
        "<script>fetch('data.json').then(r => r.text())"
        ".then(t => document.body.append(t), () => document.body.append('no data'))</script>"
    )
    assert not (decoded(render(renderer, tmp_path / "page.html").png) == GREEN).all(axis=2).any()
    with Renderer(RenderConfig(viewport_width_px=400, viewport_height_px=300, scripts=Scripts.ON)) as running:
        page = render(running, tmp_path / "page.html")
        assert (decoded(page.png)[-1, -1] == GREEN).all()
        assert {block.text for block in page.texts} == {"imported", "no data"}
        closed = running.render((tmp_path / "page.html").read_bytes())
        assert [block.text for block in closed.texts] == ["no data"]


def test_pictures_that_wait_to_be_scrolled_to_are_in_the_picture_with_scripts_too(tmp_path):
    paint(tmp_path / "there.png", GREEN)
    lazy = "<p style='height:9000px'>x</p><img loading=Lazy src=there.png>"
    (tmp_path / "page.html").write_text(f"{HEAD}{lazy}<script>document.body.append('ran')</script>")
    with Renderer(RenderConfig(viewport_width_px=400, viewport_height_px=300, scripts=Scripts.ON)) as running:
        page = render(running, tmp_path / "page.html")
    assert (decoded(page.png) == GREEN).all(axis=2).sum() == 60 * 60
    assert "ran" in [block.text for block in page.texts]


# --- what is refused --------------------------------------------------------------------------------------------------

REFERENCES = """<img src='{0}'><link rel=stylesheet href='{0}'><iframe src='{0}'></iframe><object data='{0}'></object>
<embed src='{0}'><style>@import '{0}';p{{background:url('{0}')}}</style><p>visible</p>
<svg><image href='{0}' width=50 height=50 /></svg><input type=image src='{0}'><body background='{0}'>"""

OUT = {
    "up": ("../secret.{}", "above"),
    "up, encoded": ("%2e%2E/secret.{}", "above"),
    "up, with a backslash": ("..\\secret.{}", "above"),
    "up, half encoded": (".%2e/secret.{}", "above"),
    "up, through a folder": ("inner/../../secret.{}", "above"),
    "up, by an encoded slash": ("..%2fsecret.{}", "outside"),
    "up, by an encoded slash below": ("inner/..%2f..%2fsecret.{}", "outside"),
    "up, encoded twice": ("%252e%252e%252fsecret.{}", "missing"),
    "up, past the root": ("../" * 40 + "{folder}/secret.{{}}", "outside"),
    "absolute": ("{folder}/secret.{{}}", "outside"),
    "absolute, into its own folder": ("{folder}/own/mine.{{}}", "outside"),
    "file:": ("file://{folder}/secret.{{}}", "outside"),
    "file:, with a host": ("file://localhost{folder}/secret.{{}}", "outside"),
    "file:, into its own folder": ("file://{folder}/own/mine.{{}}", "outside"),
    "a link": ("link.{}", "outside"),
    "a link to a folder": ("linked/secret.{}", "outside"),
    "a link to a link": ("second.{}", "outside"),
    "a link, and up": ("linked/sub/secret.{}", "outside"),
}


@pytest.fixture
def secrets(tmp_path):
    """Red files beside and above the folder `own`, in which there are links to them."""
    for folder in (tmp_path, tmp_path / "sub"):
        paint(folder / "secret.png", RED)
        (folder / "secret.css").write_text(f"body{{background:#f00!important}} p::before{{content:'{SECRET}'}}")
        (folder / "secret.html").write_text(f"<body style='background:#f00'>{SECRET}")
        (folder / "secret.txt").write_text(SECRET)
    own = tmp_path / "own"
    (own / "inner").mkdir(parents=True)
    for kind in ("png", "css", "html", "txt"):
        shutil.copy(tmp_path / f"secret.{kind}", own / f"mine.{kind}")
        (own / f"link.{kind}").symlink_to(tmp_path / f"secret.{kind}")
        (own / f"second.{kind}").symlink_to(f"link.{kind}")
    (own / "linked").symlink_to("..")
    return own


@pytest.mark.parametrize("kind", ["png", "css", "html", "txt"])
@pytest.mark.parametrize("name", OUT)
def test_nothing_outside_the_folder_is_read(name, kind, secrets, renderer):
    form, reason = OUT[name]
    address = (form.format(folder=secrets.parent) if "{folder}" in form else form).format(kind)
    (secrets / "page.html").write_text(HEAD + REFERENCES.format(address))
    with opened_in(secrets.parent, secrets.parent / "sub", secrets) as names:
        page = render(renderer, secrets / "page.html")
        assert {name for name in names() if name.startswith(("secret", "mine"))} == set()
    assert not (decoded(page.png) == RED).all(axis=2).any()
    assert not any(SECRET in block.text for block in page.texts)
    found = refused(page)
    if "\\" in address:
        found.pop("missing")  # in a stylesheet it is no slash
    assert list(found) == [reason]
    assert all(shown.endswith(f".{kind}") for shown in found[reason])


def test_the_watch_sees_what_is_read(secrets, renderer):
    """The control of the test above."""
    (secrets / "page.html").write_text(HEAD + "<img src=../secret.png>")
    with opened_in(secrets.parent) as names:
        page = render(renderer, secrets / "page.html", secrets.parent)
        assert "secret.png" in names()
    assert (decoded(page.png) == RED).all(axis=2).sum() == 60 * 60
    assert page.notes == ()


def test_links_that_stay_in_the_folder_are_followed(tmp_path, renderer):
    paint(tmp_path / "own/deep/real.png", GREEN)
    (tmp_path / "own/link.png").symlink_to("deep/real.png")
    (tmp_path / "own/again").symlink_to("deep")
    (tmp_path / "way in").symlink_to("own")
    (tmp_path / "own/page.html").write_text(HEAD + "<img src=link.png><img src=again/real.png>")
    for path in (tmp_path / "own/page.html", tmp_path / "way in/page.html", tmp_path / "way in/deep/../page.html"):
        page = render(renderer, path)
        assert page.notes == ()
        assert (decoded(page.png) == GREEN).all(axis=2).sum() == 2 * 60 * 60


@pytest.mark.parametrize("scheme", ["http", "https", ""])
@pytest.mark.parametrize("scripts", Scripts)
def test_no_server_is_asked(scheme, scripts, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        visits = []

        def accept():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                visits.append(connection.recv(100))
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        address = f"{scheme}:" * bool(scheme) + f"//127.0.0.1:{server.getsockname()[1]}/there.png"
        html = (
            HEAD + REFERENCES.format(address) + f"<base href='{address}'><img src=there.png><script src=x.js></script>"
        )
        (tmp_path / "page.html").write_text(html)
        config = RenderConfig(viewport_width_px=400, viewport_height_px=300, scripts=scripts)
        with Renderer(config) as renderer:
            page = render(renderer, tmp_path / "page.html")
        time.sleep(0.1)
        server.shutdown(socket.SHUT_RDWR)
    assert visits == []
    assert "visible" in [block.text for block in page.texts]
    assert list(refused(page)) == ["elsewhere"]
    assert any("there.png" in shown and "127.0.0.1" in shown for shown in refused(page)["elsewhere"])


KINDS = {
    "picture": "<img src={}>",
    "srcset": "<img srcset='{} 1x'>",
    "stylesheet": "<link rel=stylesheet href={}>",
    "import": "<style>@import '{}';</style>",
    "background": "<p style='background:url({})'>x",
    "font": "<style>@font-face{{font-family:own;src:url({})}}</style><p style='font-family:own'>x",
    "frame": "<iframe src={}></iframe>",
    "old frame": "<frameset><frame src={}></frameset>",
    "object": "<object data={}></object>",
    "embed": "<embed src={}>",
    "svg": "<svg><image href={} width=9 height=9 /></svg>",
    "use": "<svg><use href='{}#a' /></svg>",
    "input": "<input type=image src={}>",
    "film": "<video src={}></video>",
    "sound": "<audio controls><source src={}></audio>",
    "poster": "<video poster={}></video>",
    "a frame's": '<iframe srcdoc="<img src={}>"></iframe>',
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_names_a_server_or_a_file_outside_it_is_listed(kind, tmp_path, renderer):
    found = {}
    for address in ("https://example.com/there.x", "file:///etc/there.x", "/etc/there.x", "../there.x", "there.x"):
        (tmp_path / "page.html").write_text(KINDS[kind].format(address))
        found[address] = list(refused(render(renderer, tmp_path / "page.html")).items())
    # What a browser does not load for a file, it does not look for either.
    own = "refused" if kind in ("use", "film", "sound") else "missing"
    assert found == {
        "https://example.com/there.x": [("elsewhere", ("https://example.com/there.x",))],
        "file:///etc/there.x": [("outside", ("file:///etc/there.x",))],
        "/etc/there.x": [("outside", ("/etc/there.x",))],
        "../there.x": [("above", ("../there.x",))],
        "there.x": [(own, ("there.x",))],
    }


# --- files that are none, and limits ----------------------------------------------------------------------------------


def test_pipes_devices_folders_and_rings_neither_hang_nor_fill_memory(tmp_path, renderer):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "ring.png").symlink_to("ring.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
    (tmp_path / "page.html").write_text(
        HEAD + "<img src=pipe.png><link rel=stylesheet href=pipe.png><img src=folder.png><img src=./>"
        "<img src=ring.png><img src=socket.png><img src=page.html/below.png><p>visible"
    )
    started = time.monotonic()
    page = render(renderer, tmp_path / "page.html")
    assert time.monotonic() - started < 10
    assert set(refused(page)["unreadable"]) == {"pipe.png", "folder.png", ".", "ring.png", "socket.png"}
    assert refused(page)["missing"] == ("page.html/below.png",)
    assert "visible" in [block.text for block in page.texts]


def test_an_endless_device_is_not_opened(renderer):
    page = renderer.render(
        "<img src=zero><img src=fd/0><iframe src=tty></iframe>",
        assets=Assets(root=Path("/dev"), page=Path("/dev/x.html")),
    )
    (note,) = page.notes
    assert "zero" in note.addresses and note.reason in ("unreadable", "outside")


def test_a_huge_file_is_refused_without_being_read(tmp_path, renderer):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    paint(tmp_path / "small.png", GREEN)
    (tmp_path / "page.html").write_text(HEAD + "<img src=huge.png><img src=small.png>")
    page = render(renderer, tmp_path / "page.html")
    assert refused(page) == {"too-large": ("huge.png",)}
    assert (decoded(page.png) == GREEN).all(axis=2).sum() == 60 * 60


@pytest.mark.parametrize("limit", ["max_files", "max_bytes", "max_file_bytes"])
def test_limits_on_number_and_size_hold(limit, tmp_path, renderer):
    for index in range(6):
        paint(tmp_path / f"{index}.png", GREEN)
    (tmp_path / "page.html").write_text(HEAD + "".join(f"<img src={index}.png>" for index in range(6)))
    size = (tmp_path / "0.png").stat().st_size
    value = {"max_files": 4, "max_bytes": 4 * size + size // 2, "max_file_bytes": size - 1}[limit]
    page = render(renderer, tmp_path / "page.html", **{limit: value})
    shown = (decoded(page.png) == GREEN).all(axis=2).sum() // 3600
    (note,) = page.notes
    assert (shown, note.count) == ((0, 6) if limit == "max_file_bytes" else (4, 2))
    assert note.reason == "too-large"


def test_the_list_of_what_is_missing_is_bounded_and_counts(tmp_path, renderer):
    names = ["%1b[31m&#x202e;.png", "x" * 200 + ".png", *(f"{index}.png" for index in range(57))]
    (tmp_path / "page.html").write_text(HEAD + "".join(f"<img src='{name}'><img src='{name}?v=2'>" for name in names))
    (note,) = render(renderer, tmp_path / "page.html").notes
    assert (note.reason, note.count, len(note.addresses)) == ("missing", len(names), MAX_ADDRESSES)
    steering, long, *others = note.addresses
    assert steering == "%1b[31m%E2%80%AE.png"
    assert long == "x" * 120 + "..."
    assert others == [f"{index}.png" for index in range(MAX_ADDRESSES - 2)]
    assert str(note).startswith("not loaded, no such file: %1b[31m")
    assert str(note).endswith(f"7.png, and {len(names) - MAX_ADDRESSES} more")


def test_scripts_that_never_cease_to_ask_end(tmp_path):
    paint(tmp_path / "there.png", GREEN)
    script = "let n=0;function f(){let i=new Image();i.onload=i.onerror=f;i.src='there.png?'+n++};onload=f"
    (tmp_path / "page.html").write_text(f"{HEAD}<p>visible</p><script>{script}</script>")
    with Renderer(RenderConfig(scripts=Scripts.ON, timeout_s=40.0)) as renderer:
        assert [block.text for block in render(renderer, tmp_path / "page.html").texts] == ["visible"]
        assert [block.text for block in renderer.render("<p>after").texts] == ["after"]


# --- one page after the other -----------------------------------------------------------------------------------------


def test_nothing_is_kept_from_the_page_before(tmp_path):
    """Folders of one name have one address, and the same tab renders all of them."""
    for name, colour in (("a", "rgb(0,160,0)"), ("b", "rgb(0,0,200)")):
        (tmp_path / name / "site").mkdir(parents=True)
        (tmp_path / name / "site/page.html").write_text(HEAD + "<link rel=stylesheet href=x.css><p>x")
        (tmp_path / name / "site/x.css").write_text(f"body{{background:{colour}}}")
    with Renderer(RenderConfig(viewport_width_px=50, viewport_height_px=50, pages_in_flight=1)) as renderer:
        first, second, third = (render(renderer, tmp_path / name / "site/page.html") for name in "aba")
        assert [tuple(decoded(page.png)[-1, -1]) for page in (first, second, third)] == [GREEN, (0, 0, 200), GREEN]
        (tmp_path / "a/site/x.css").write_text("body{background:#ff0}")
        assert tuple(decoded(render(renderer, tmp_path / "a/site/page.html").png)[-1, -1]) == (255, 255, 0)
        closed = renderer.render((tmp_path / "a/site/page.html").read_bytes())
        assert (decoded(closed.png)[-1, -1] == 255).all()
        assert closed.notes == ()


def test_pages_in_flight_keep_to_their_own_folders(tmp_path, renderer):
    def files():
        for index in range(24):
            folder = tmp_path / str(index)
            folder.mkdir()
            (folder / "x.css").write_text(
                f"p::before{{content:'x'}} p{{width:{index + 1}px;height:9px;overflow:hidden}}"
            )
            html = HEAD.encode() + b"<link rel=stylesheet href=x.css><p></p>"
            assets = None if index % 3 == 2 else Assets(root=folder, page=folder / "page.html")
            yield HtmlFile(html=html, assets=assets)

    widths = [page.elements[0].box.width_px for page in renderer.render_many(files(), Capture.ELEMENTS)]
    assert widths == [400 if index % 3 == 2 else index + 1 for index in range(24)]


# Without a base, under which the browser itself now and then forgets what stands for a picture that is missing.
STEADY = [name for name in SHOWN if "base" not in name]


def test_one_page_has_one_picture(site, renderer):
    (site / "page.html").write_text(HEAD + "".join(SHOWN[name] for name in STEADY), encoding="utf-8")
    pages = [render(renderer, site / "page.html") for _ in range(5)]
    assert len({page.png for page in pages}) == 1
    assert len({page.notes for page in pages}) == 1


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_above_may_be_given(tmp_path, renderer):
    paint(tmp_path / "site/img/there.png", GREEN)
    (tmp_path / "site/pages").mkdir()
    path = tmp_path / "site/pages/x.html"
    path.write_text(HEAD + "<img src=../img/there.png><img src=../../secret.png>")
    paint(tmp_path / "secret.png", RED)
    own = render(renderer, path)
    assert refused(own) == {"above": ("../img/there.png", "../../secret.png")}
    assert "an assets root that holds both" in str(own.notes[0])
    wide = render(renderer, path, tmp_path / "site")
    assert refused(wide) == {"above": ("../../secret.png",)}
    assert (decoded(wide.png) == GREEN).all(axis=2).sum() == 60 * 60


def test_paths_may_be_relative(tmp_path, renderer, monkeypatch):
    paint(tmp_path / "site/there.png", GREEN)
    (tmp_path / "site/pages").mkdir()
    html = HEAD.encode() + b"<img src=../there.png>"
    monkeypatch.chdir(tmp_path / "site/pages")
    places = ((Path(".."), Path("x.html")), (Path("../.."), Path("x.html")), (Path(".."), Path("../pages/x.html")))
    for root, page in places:
        assert renderer.render(html, assets=Assets(root=root, page=page)).notes == ()
    monkeypatch.chdir(tmp_path)
    assert renderer.render(html, assets=Assets(root=Path("site"), page=Path("site/pages/x.html"))).notes == ()


def test_impossible_sources_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not lie in"):
        Assets(root=tmp_path / "site", page=tmp_path / "sites/x.html")
    with pytest.raises(ConfigError, match="max_files=0"):
        Assets(root=tmp_path, page=tmp_path / "x.html", max_files=0)
    with pytest.raises(InputError, match="holds no assets"):
        Assets.beside(tmp_path / "x.html", tmp_path / "nowhere")


def test_a_stream_lies_in_no_folder_but_may_be_given_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert Assets.beside(tmp_path / "pipe") is None
    assert Assets.beside(Path("/dev/stdin")) is None
    assert Assets.beside(Path("/dev/stdin"), tmp_path) == Assets(root=tmp_path, page=tmp_path / "stdin")
    assert Assets.beside(tmp_path / "x.html") == Assets(root=tmp_path, page=tmp_path / "x.html")


# --- the door alone: addresses that no browser would send -------------------------------------------------------------


def read(folder, path):
    door = AssetDoor(Assets(root=folder, page=folder / "page.html"))
    asset = asyncio.run(door.read(door.address.rpartition("/")[0] + "/" + path))
    assert (asset is None) == bool(door.notes())
    return asset


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "secret").write_text(SECRET)
    (folder / "own/inner").mkdir(parents=True)
    (folder / "own/link").symlink_to("../secret")
    (folder / "own/up").symlink_to("..")
    return folder / "own"


def test_an_encoded_slash_is_no_slash(guarded):
    (guarded / "inner/plain").write_text("plain")
    assert read(guarded, "inner/plain").content == b"plain"
    assert read(guarded, "inner%2fplain") is None
    assert read(guarded, "inner%2Fplain") is None


STEPS = st.sampled_from(
    [
        *"/ .. %2e%2e . %2e .%2E %2f ..%2f %2F secret link up inner own %00 ? # // \\ %5c %252e ~ *".split(),
        "",
        "\0",
        "é",
    ]
)


@given(steps=st.lists(STEPS, max_size=8))
def test_no_address_reads_the_secret(steps, guarded):
    for path in ("/".join(steps), "".join(steps)):
        assert read(guarded, path) is None


@given(
    name=st.binary(min_size=1, max_size=60).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
)
def test_every_name_that_a_disk_can_hold_is_read(name, guarded):
    path = os.fsencode(guarded) + b"/inner/" + name
    Path(os.fsdecode(path)).write_bytes(name)
    try:
        assert read(guarded, f"inner/{quote(name, safe='')}").content == name
    finally:
        Path(os.fsdecode(path)).unlink()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://page.invalid.example/x", "elsewhere"),
        ("https://page.invalid:444/x", "elsewhere"),
        ("https://page.invalid@example.com/x", "elsewhere"),
        ("http://page.invalid/x", "elsewhere"),
        ("file:///etc/passwd", "outside"),
        ("https://page.invalid/etc/passwd", "outside"),
        ("https://page.invalid/-/x", "above"),
    ],
)
def test_other_addresses_are_told_apart(url, reason, guarded):
    door = AssetDoor(Assets(root=guarded, page=guarded / "page.html"))
    assert asyncio.run(door.read(url)) is None
    assert [note.reason for note in door.notes()] == [reason]
