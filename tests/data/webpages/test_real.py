"""Pages that somebody else made: fetched as anyone would, pinned, and standing alone.

The package comes from npm's registry into lensmith's cache folder, once; where it cannot be had, these tests skip and
say so.
"""

import dataclasses
import io
import re
import tarfile

import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_bytes
from lensmith.data.webpages.markup.outside import css_reaches_out, css_without_outside
from lensmith.data.webpages.markup.repair import repair
from lensmith.data.webpages.real import SB_ADMIN_2, fetch_real_pages, page_alone
from lensmith.render import Capture

TARBALL = f"npm/{SB_ADMIN_2.name}-{SB_ADMIN_2.version}.tgz"


@pytest.fixture(scope="module")
def pages():
    try:
        return {page.name: page for page in fetch_real_pages()}
    except InputError as error:
        pytest.skip(f"REAL PAGES WERE NOT TESTED: {error}")


# --- the real package ---------------------------------------------------------------------------------------------


def test_the_pages_are_those_that_were_published(pages):
    assert list(pages) == ["login.html", "register.html", "forgot-password.html", "404.html"]
    login = pages["login.html"]
    assert (login.package, login.version, login.path) == ("startbootstrap-sb-admin-2", "4.1.4", "login.html")
    with tarfile.open(default_cache_dir() / TARBALL) as archive:
        for page in pages.values():
            published = archive.extractfile(f"package/{page.path}").read()
            assert page.sha256 == sha256_of_bytes(published)


def test_a_page_stands_alone(pages):
    for page in pages.values():
        style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)[1]
        markup = page.html.replace(style, "")
        assert len(style) > 100_000
        assert not css_reaches_out(style)
        assert "source.unsplash.com" not in page.html
        assert not re.search(r"<(script|link|iframe|base|object|embed)\b", markup)
        assert not re.search(r"\son[a-z]+=", markup)
        assert "://" not in markup
        for address in re.findall(r'\ssrc="([^"]*)"', markup):
            assert address.startswith("data:image/")
        assert repair(markup).changes == ()


def test_own_pictures_are_inside(pages):
    assert pages["404.html"].html.count('src="data:image/svg+xml;base64,') == 4


def test_a_page_looks_like_itself(pages, page_renderer):
    login = page_renderer.render(pages["login.html"].html, Capture.TEXTS | Capture.ELEMENTS)
    texts = {block.text for block in login.texts}
    assert {"Welcome Back!", "Remember Me", "Login", "Login with Google", "Forgot Password?"} <= texts
    buttons = {block.text: block.colour for block in login.texts if block.text.startswith("Login")}
    assert set(buttons.values()) == {(255, 255, 255)}  # the stylesheet is at work
    assert 500 < login.height_px < 900


def test_the_cache_is_enough_the_second_time(pages, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert {page.name: page for page in fetch_real_pages()} == pages


def test_a_damaged_cache_is_fetched_again(pages, tmp_path):
    (tmp_path / "npm").mkdir()
    (tmp_path / TARBALL).write_bytes(b"cut short")
    assert fetch_real_pages(tmp_path) == list(pages.values())
    assert (tmp_path / TARBALL).read_bytes() == (default_cache_dir() / TARBALL).read_bytes()


def test_another_content_is_refused_and_not_kept(pages, tmp_path):
    other = dataclasses.replace(SB_ADMIN_2, sha256="0" * 64)
    with pytest.raises(InputError, match="not the package that is expected") as caught:
        fetch_real_pages(tmp_path, package=other)
    assert SB_ADMIN_2.sha256 in str(caught.value)
    assert not list(tmp_path.iterdir())


# --- when it cannot be had ----------------------------------------------------------------------------------------


def test_without_npm_a_person_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not installed") as caught:
        fetch_real_pages(tmp_path / "cache")
    assert "install Node.js" in caught.value.hint


def test_without_a_network_a_person_is_told_what_to_try(pages, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    with pytest.raises(InputError, match="npm pack failed") as caught:
        fetch_real_pages(tmp_path / "cache")
    assert "ECONNREFUSED" in caught.value.actual
    assert "npm pack startbootstrap-sb-admin-2@4.1.4" in caught.value.hint
    assert not (tmp_path / "cache").exists()


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "lensmith"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "lensmith"


# --- making a page stand alone ------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html lang="en"><head><title>A &amp; B</title><base href="https://example.org/">
<link rel="icon" href="favicon.ico"><link href="../css/own.css" rel="stylesheet"><link href="o.css" rel="stylesheet">
<meta http-equiv="refresh" content="0;url=https://example.org"><script>run()</script></head>
<body onload="run()"><h1>Hi <!-- note --></h1><img src="../img/dot.svg" alt="dot"><img src="https://example.org/x.png">
<iframe src="https://example.org"></iframe><p style="background:url(https://example.org/b.png);color:red">red</p>
<a href="https://example.org">out</a><a href="javascript:run()">run</a></body></html>"""


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        ("a{color:red;background:url(http://x)}b{margin:0}", "a{color:red;}b{margin:0}"),
        ("a{background:url(http://x)}b{margin:0}", "a{}b{margin:0}"),
        ("@media print{a{background:url(http://x)}}b{margin:0}", "@media print{a{}}b{margin:0}"),
        ('a[href="url(http://x"]{color:red}b{margin:0}', "b{margin:0}"),
        ('@media x{a[href="url(http://x"]{color:red;margin:0}i{top:0}}b{margin:0}', "@media x{i{top:0}}b{margin:0}"),
        ("color:red;background:url(http://x)", "color:red;"),
        ("a{content:'}';color:red}", "a{content:'}';color:red}"),
    ],
)
def test_a_dropped_declaration_leaves_its_rule_closed(css, kept):
    assert css_without_outside(css) == kept


def test_only_what_is_inside_remains():
    css = css_without_outside("@import 'more.css';h1{background:url(https://example.org/a.png);color:#111}p{margin:0}")
    files = {"img/dot.svg": b"<svg/>", "css/own.css": css.encode()}
    page = page_alone(PAGE, "pages/a.html", files, stylesheet="css/own.css", css=css)
    assert page == (
        '<!doctype html><html lang="en"><head><title>A &amp; B</title>'
        "<style>h1{color:#111}p{margin:0}</style></head>"
        '<body><h1>Hi</h1><img src="data:image/svg+xml;base64,PHN2Zy8+" alt="dot"><img>'
        '<p style="color:red">red</p><a href="#">out</a><a href="#">run</a></body></html>'
    )


def test_a_file_that_the_package_lacks_is_named(tmp_path):
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w:gz") as archive:
        for name, content in (("package/a.html", b"<p>a</p>"), ("package/s.css", b"p{}"), ("../escaped", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    package = dataclasses.replace(
        SB_ADMIN_2,
        name="p",
        version="1",
        sha256=sha256_of_bytes(tarball.getvalue()),
        stylesheet="s.css",
        pages=("a.html",),
    )
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / "p-1.tgz").write_bytes(tarball.getvalue())
    (page,) = fetch_real_pages(tmp_path, package=package)
    assert "<p>a</p>" in page.html
    with pytest.raises(InputError, match="p@1 does not hold a file") as caught:
        fetch_real_pages(tmp_path, package=dataclasses.replace(package, pages=("b.html",)))
    assert caught.value.expected == "b.html"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["npm", "p-1.tgz"]
