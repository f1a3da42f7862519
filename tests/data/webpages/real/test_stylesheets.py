"""A package's stylesheets: imports, fonts and pictures, and what hostile ones cost."""

import base64

import pytest

from lensmith.data.webpages.real.archives import PackageFiles
from lensmith.data.webpages.real.pictures import PictureSize
from lensmith.data.webpages.real.stylesheets import MOST_CSS_CHARS, Stylesheets
from lensmith.data.webpages.real.unfit import Cause, UnfitPageError

DOT = PictureSize.of_pixels(4, 2)


def alone(files, path="css/a.css"):
    content = {name: css if isinstance(css, bytes) else css.encode() for name, css in files.items()}
    return Stylesheets(PackageFiles(content=content, picture_sizes={"img/dot.png": DOT})).linked(path)


@pytest.mark.parametrize(
    ("rule", "becomes"),
    [
        ('@import "b.css";', "b{top:0}"),
        ("@import url(b.css);", "b{top:0}"),
        ("@import url('./b.css') screen and (min-width: 9px);", "@media screen and (min-width: 9px){b{top:0}}"),
        ("@import 'b.css' layer(base) supports(display: grid) print;",
         "@layer base{@supports (display: grid){@media print{b{top:0}}}}"),
        ("@IMPORT 'b.css' layer;", "@layer {b{top:0}}"),
        ("@import '../../b.css';", ""),
        ("@import 'https://example.org/b.css';", ""),
        ("/* @import 'b.css'; */", " "),
        ('@charset "utf-8";', " "),
    ],
)  # fmt: skip
def test_imports_are_put_in(rule, becomes):
    assert (
        alone({"css/a.css": f"{rule}a{{left:0}}", "css/b.css": "b{top:0}", "b.css": "x{}"}) == f"{becomes}a{{left:0}}"
    )


def test_an_import_in_a_string_is_none():
    css = """a::before{content:"@import 'b.css';"}a{left:0}"""
    assert alone({"css/a.css": css, "css/b.css": "b{top:0}"}) == "a::before{}a{left:0}"  # in doubt it goes


def test_a_cycle_of_imports_ends():
    files = {"css/a.css": "@import 'b.css';a{left:0}", "css/b.css": "@import 'a.css';@import 'b.css';b{top:0}"}
    assert alone(files) == "b{top:0}a{left:0}"


def test_a_block_that_a_file_leaves_open_ends_with_it():
    files = {"css/a.css": "@import 'b.css';a{left:0}", "css/b.css": "@media print{b{content:'}'"}
    assert alone(files) == "@media print{b{content:'}'}}a{left:0}"


def test_imports_that_multiply_are_given_up():
    files = {f"css/{n}.css": f"@import '{n + 1}.css';@import '{n + 1}.css';" for n in range(60)}
    with pytest.raises(UnfitPageError, match="import too many") as caught:
        alone(files, "css/0.css")
    assert caught.value.cause is Cause.TOO_LARGE


def test_a_stylesheet_that_is_too_large_is_given_up():
    part = "a{left:0}" * (MOST_CSS_CHARS // 9 // 4)
    imports = "".join(f"@import 'b.css' {medium};" for medium in ("print", "screen", "all", "speech", "tty"))
    assert len(alone({"css/a.css": part})) == len(part)
    with pytest.raises(UnfitPageError, match="too large"):
        alone({"css/a.css": imports, "css/b.css": part})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["url(", "url(" + " " * 9, "@import ", "@font-face{", "/*", '"', "\\", "@import url(", "@import'a' x"]
)
def test_what_does_not_end_costs_no_more_than_reading_it(piece):
    alone({"css/a.css": piece * 100_000})
    alone({"css/a.css": piece + " " * 500_000})


@pytest.mark.parametrize(
    ("address", "becomes"),
    [
        ("../img/dot.png", DOT.placeholder()),
        ("'../img/dot.png?v=1'", DOT.placeholder()),
        ("https://example.org/40x20", PictureSize.of_pixels(40, 20).placeholder()),
        ("#mark", "#mark"),
        ("data:image/svg+xml,%3Csvg/%3E", "data:image/svg+xml,%3Csvg/%3E"),
        ('"data:image/svg+xml,%3Csvg width=\'9\' height=\'8\'%3E' + "%20" * 700 + '%3C/svg%3E"',
         PictureSize(width="9", height="8").placeholder()),
    ],
)  # fmt: skip
def test_pictures_become_placeholders_and_small_marks_stay(address, becomes):
    css = alone({"css/a.css": f"a{{background:#fff url({address}) no-repeat;left:0}}"})
    assert css == f'a{{background:#fff url("{becomes}") no-repeat;left:0}}'


def test_the_smallest_font_of_the_package_is_kept():
    css = """@font-face{font-family:"Icons";src:url(../f/i.eot);src:url("../f/i.eot?#fix") format("embedded-opentype"),
    url(../f/i.ttf) format("truetype"),url(../f/i.woff2?v=3) format("woff2"),local("Icons");font-weight:400}a{left:0}"""
    kept = base64.b64encode(b"short").decode()
    expected = f'@font-face{{font-family:"Icons";font-weight:400;src:url(data:font/woff2;base64,{kept})}}a{{left:0}}'
    assert alone({"css/a.css": css, "f/i.ttf": b"very long", "f/i.woff2": b"short", "f/i.eot": b"-"}) == expected


def test_a_font_from_elsewhere_leaves_no_rule():
    css = "@font-face{font-family:X;src:local('X'),url(https://example.org/x.woff2)}a{left:0}"
    assert alone({"css/a.css": css}) == "a{left:0}"


def test_a_stylesheet_that_is_not_there_is_empty():
    assert alone({}) == ""
