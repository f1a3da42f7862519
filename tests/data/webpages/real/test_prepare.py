"""What becomes of a page: it stands alone, its pictures are plain areas of the same size, nothing runs or leads out."""

import re
from urllib.parse import unquote

import pytest

from lensmith.data.webpages.markup.outside import css_reaches_out
from lensmith.data.webpages.real.archives import PackageFiles
from lensmith.data.webpages.real.pictures import PictureSize
from lensmith.data.webpages.real.prepare import AT_REST, Preparer
from lensmith.data.webpages.real.unfit import Cause, UnfitPageError
from lensmith.render import Capture

SMALL, WIDE = PictureSize.of_pixels(40, 20), PictureSize.of_pixels(640, 100)


def prepared(html, content=None, sizes=None, *, path="pages/a.html", stylesheets=()):
    source = html if isinstance(html, bytes) else html.encode()
    files = PackageFiles(content={path: source, **(content or {})}, picture_sizes=sizes or {})
    return Preparer(files, stylesheets=stylesheets).prepare(path)


def test_a_page_with_everything():
    html = prepared(
        """<!DOCTYPE html><html lang="en"><head><title>A &amp; B</title><link rel="icon" href="favicon.ico">
        <link rel="stylesheet" href="../css/own.css?v=2"><link rel="stylesheet" href="https://example.org/font.css">
        <meta http-equiv="refresh" content="0;url=https://example.org"><script>run()</script></head>
        <body onload="run()"><h1>Hi <!-- note --></h1><img src="../img/dot.png" alt="dot" srcset="b.png 2x">
        <noscript>no</noscript><iframe src="https://example.org"></iframe><video src="v.mp4">old</video>
        <p style="background:url(https://example.org/640x100.png);color:red">red</p>
        <a href="b.html" target="_blank">in</a><a href="https://example.org">out</a><a name="place">place</a></body>""",
        {"css/own.css": b"h1{margin:0}"},
        {"img/dot.png": SMALL},
    )
    assert html == (
        '<!doctype html><html lang="en"><head><title>A &amp; B</title><style>h1{margin:0}</style>'
        f"<style>{AT_REST}</style></head>"
        f'<body><h1>Hi</h1><img src="{SMALL.placeholder()}" alt="dot">'
        f'<p style="background:url(&quot;{WIDE.placeholder()}&quot;);color:red">red</p>'
        '<a href="#">in</a><a href="#">out</a><a name="place">place</a></body></html>'
    )


@pytest.mark.parametrize(
    ("markup", "size"),
    [
        ('<img src="../img/dot.png">', SMALL),
        ('<img src="/img/dot.png#x">', SMALL),
        ('<img data-src="../img/dot.png" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', SMALL),
        ('<img srcset="../img/dot.png 1x, ../img/other.png 2x">', SMALL),
        ('<picture><source srcset="big.webp"><img src="../img/dot.png"></picture>', SMALL),
        ('<input type="image" src="../img/dot.png">', SMALL),
        ('<img src="../img/drawing.svg">', PictureSize(view_box="0 0 8 4")),
        ('<img src="https://dummyimage.com/640x100/dee2e6/fff.jpg">', WIDE),
        ('<img src="https://images.example.org/p?auto=format&w=640&h=100">', WIDE),
        ('<img src="missing.png" width="640" height="100">', WIDE),
        ('<img src="missing.png">', PictureSize.of_pixels(300, 200)),
        ('<img src="../../../etc/passwd">', PictureSize.of_pixels(300, 200)),
    ],
)
def test_a_picture_keeps_its_size(markup, size):
    sizes = {"img/dot.png": SMALL, "img/drawing.svg": PictureSize(view_box="0 0 8 4")}
    html = prepared(f"<!doctype html><html><body>{markup}</body></html>", sizes=sizes)
    assert re.findall(r'src="([^"]*)"', html) == [size.placeholder()]
    assert "srcset" not in html and "<source" not in html


def test_a_drawing_keeps_its_size_and_loses_its_lines():
    html = prepared(
        '<html><body><svg width="24" height="24" style="color:red"><path d="M0 0h9"/></svg> after</body></html>'
    )
    assert '<svg width="24" height="24" style="color:red;background:#9fb0c3"></svg> after' in html


def test_the_layout_is_that_of_the_page_with_its_pictures(page_renderer):
    markup = """<!doctype html><html><head><style>img{{max-width:100%;height:auto}}.b{{width:50px;height:30px}}
    .p{{background:url("{wide}") no-repeat;width:700px;height:110px}}</style></head><body><p><img src="{wide}">
    <img class="b" src="{wide}" style="object-fit:cover">
    <div class="p"></div>text</p></body></html>"""
    original = page_renderer.render(markup.format(wide=WIDE.placeholder()), Capture.ELEMENTS | Capture.PICTURE)
    page = prepared(markup.format(wide="../img/wide.png"), sizes={"img/wide.png": WIDE})
    again = page_renderer.render(page, Capture.ELEMENTS | Capture.PICTURE)
    assert again.elements == original.elements
    assert again.png == original.png


def test_a_placeholder_is_one_colour_everywhere(
    page_renderer,
):
    sizes = (SMALL, PictureSize(view_box="-5 -5 10 40", width="40", height="20"), PictureSize(width="40", height="20"))
    pictures = {
        page_renderer.render(
            f'<!doctype html><body style="margin:0"><img style="display:block" src="{size.placeholder()}">'
        ).png
        for size in sizes
    }
    assert len(pictures) == 1
    assert "#9fb0c3" in unquote(SMALL.placeholder())


def test_an_icon_that_a_font_would_draw_is_a_picture():
    html = prepared(
        '<html><body><i class="material-icons md">home</i><p class="material-icons-list"><b>x</b></p></body></html>'
    )
    assert "home" not in html
    assert html.count("<img") == 1


def test_pages_without_a_stylesheet_get_the_one_that_a_script_would_load():
    content = {"dist/kit.css": b"p{color:red}"}
    bare = prepared("<html><head></head><body><p>x</p></body></html>", content, stylesheets=("dist/kit.css", "no.css"))
    own = prepared(
        "<html><head><style>i{top:0}</style></head><body></body></html>", content, stylesheets=("dist/kit.css",)
    )
    assert "<style>p{color:red}</style>" in bare
    assert "<style>p{color:red}</style><style>i{top:0}</style>" in own
    link = "<html><head><link rel=stylesheet href=/a.css></head><body></body>"
    linked = prepared(link, {**content, "a.css": b"b{top:0}"}, stylesheets=("dist/kit.css",))
    assert "<style>b{top:0}</style>" in linked and "p{color:red}" not in linked


def test_a_base_moves_addresses_and_media_stay():
    html = prepared(
        '<html><head><base href="../"><link rel="stylesheet" media="tty" href="css/own.css"></head><body></body>',
        {"css/own.css": b"p{top:0}"},
    )
    assert '<style media="tty">p{top:0}</style>' in html
    assert "<base" not in html


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("<div>part</div>", Cause.FRAGMENT),
        ("<html><frameset cols='1,2'><frame src='a'></frameset></html>", Cause.FRAGMENT),
        ("<html><body><?php echo 1 ?></body></html>", Cause.TEMPLATE),
        ("<html><body>@@include('nav.html')</body></html>", Cause.TEMPLATE),
        ("<html><body><p>{{ title }}</p></body></html>", Cause.TEMPLATE),
        ("<html><head><link rel=stylesheet href=missing.css></head><body></body></html>", Cause.UNSTYLED),
        ("<html><head><link rel=stylesheet href=https://example.org/a.css></head><body></body></html>", Cause.UNSTYLED),
        ("<html><head><style>p{}</style><script src=load.js></script></head><body></body></html>", Cause.UNSTYLED),
        ("<html><body>" + "<p>x" * 9000 + "</body></html>", Cause.TOO_LARGE),
    ],
)
def test_what_is_no_page_says_so(source, cause):
    with pytest.raises(UnfitPageError) as caught:
        prepared(source)
    assert caught.value.cause is cause


@pytest.mark.parametrize(
    "head",
    [
        "<link rel=stylesheet href=https://example.org/font-awesome.css>",
        "<link rel=stylesheet href=missing.css media=print>",
        "<link rel='alternate stylesheet' href=missing.css>",
        "<link rel=stylesheet href=/a.css><link rel=stylesheet href=https://example.org/widget.css>",
        "<link rel=stylesheet href=/a.css><link rel=stylesheet><script src=run.js></script>",
        f"<style>{'p{top:0}' * 999}</style><script src=run.js></script>",
        "",
    ],
)
def test_a_page_that_shows_what_it_is_all_the_same_is_kept(head):
    assert "text" in prepared(f"<html><head>{head}</head><body>text</body></html>", {"a.css": b"p{}"})


def test_marks_in_a_script_make_no_template():
    assert "text" in prepared("<html><body><script>var a = '{{ title }}'</script>text</body></html>")


def test_a_page_that_imitates_our_marks_gets_no_other_stylesheet():
    html = prepared(
        "<html><head><style>a{top:0}</style><style>/*0*/</style></head><body>/*0*/<p title='/*0*/'></p></body></html>"
    )
    assert html.count("a{top:0}") == 1


def test_bytes_are_decoded_as_the_page_says():
    html = prepared("<html><head><meta charset=koi8-r></head><body>Привет</body></html>".encode("koi8-r"))
    assert "Привет" in html


def test_deep_markup_is_read():
    assert "deep" in prepared("<html><body>" + "<div>" * 400 + "deep" + "</div>" * 400 + "</body></html>")


def test_nothing_reaches_out_of_a_hostile_page():
    html = prepared(
        """<html><head><style>@import url(https://example.org/a.css);a{background:url(//example.org/a.png)}
        b{background:u\\72l(https://example.org/b.png)}</style><style></style><style>x{}</style</head>
        <body background="https://example.org/x.png"><a href="javascript:run()">run</a>
        <form action="https://example.org"><button formaction="https://example.org">go</button></form>
        <svg><image href="https://example.org/x.png"/><a xlink:href="https://example.org">x</a></svg>
        <object data="https://example.org/x.swf">fallback</object><img src="https://example.org/x.png"></body></html>"""
    )
    outside = html.replace("http://www.w3.org/2000/svg", "")
    assert "example.org" not in outside
    assert "javascript" not in html
    assert not any(css_reaches_out(style) for style in re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
