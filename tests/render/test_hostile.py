"""Hostile pages: each ends within its limits as a correct picture or a typed error, with scripts off and on."""

import base64
import http.server
import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import PageCrashError, PageTimeoutError, PageTooLargeError, RenderError
from lensmith.core.types import Page
from lensmith.render import Capture, RenderConfig, Renderer, Scripts

LIMIT_S = 12.0
CLEAN_UP_S = 12.0
"""What ending a hung renderer may take on a busy machine, on top of the page's own limit."""
BOTH = (Scripts.OFF, Scripts.ON)
TOO_MUCH = (PageTooLargeError, PageTimeoutError)
"""A slow machine does not get to the end of counting."""
CRASH, KILL = b"<!--crash the renderer-->", b"<!--kill the browser-->"
STYLE = "<!doctype html><style>body{margin:0;font:16px/20px sans-serif}</style>"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A page and how it may end, with scripts off and on: the text it shows, or the error it raises."""

    html: str | bytes
    off: tuple[str | type[RenderError], ...]
    on: tuple[str | type[RenderError], ...]


def always(html, *ends):
    return Hostile(html=html, off=ends, on=ends)


def script(source, *ends):
    return Hostile(html=f"{STYLE}<p>before</p><script>{source}</script>", off=("before",), on=ends)


PAGES = {
    "endless script": script("for(;;){}", PageTimeoutError),
    "endless script after load": script("setTimeout(()=>{for(;;){}},30)", "before", PageTimeoutError),
    "endless microtasks": script("(function f(){Promise.resolve().then(f)})()", PageTimeoutError),
    "endless document.write": script("for(;;)document.write('<p>more')", PageTimeoutError, PageCrashError),
    "endless alerts": script("for(;;)alert(1)", PageTimeoutError),
    "some dialogs": always(f"{STYLE}<p>before</p><script>alert(1);confirm(2);prompt(3);print()</script>", "before"),
    "asks before it leaves": always(f"{STYLE}before<script>onbeforeunload=e=>e.preventDefault()</script>", "before"),
    "memory": script("let a=[];for(;;)a.push(new Array(1e6).fill({}))", PageTimeoutError, PageCrashError),
    "popups": always(f"{STYLE}<p>before</p><script>for(let i=0;i<50;i++)open('about:blank')</script>", "before"),
    "200,000 px high": always("<div style='height:200000px'>x</div>", PageTooLargeError),
    "endlessly growing": script(
        "(function f(){document.body.style.height=(h+=9e3)+'px';setTimeout(f)})(h=2e4)", PageTooLargeError
    ),
    "100,000 elements": always("<p>x" * 100_000, *TOO_MUCH),
    "100,000 comments and texts": always("<!---->x" * 50_000, *TOO_MUCH),
    "deep nesting": always(STYLE + "<div>" * 2_000 + "x", "x", PageTimeoutError),
    "too many bytes": always("x" * 8_000_001, PageTooLargeError),
    "infinite animation": always(
        f"{STYLE}<style>@keyframes a{{from{{background:red}}to{{margin-left:200px}}}}p{{animation:a .1s infinite}}"
        "</style><p>before",
        "before",
    ),
    "meta refresh": always(f"<meta http-equiv=refresh content='0;url=https://example.com/'>{STYLE}before", "before"),
    "meta refresh to a file": always(f"<meta http-equiv=refresh content='0;url=file:///'>{STYLE}before", "before"),
    "goes elsewhere": script("location='https://example.com/'", RenderError),
    "goes to itself": script("location.reload()", RenderError),
    "empties itself": script("location='about:blank'", RenderError),
    "submits a form": always(
        f"{STYLE}<form action='https://example.com/'><p>before</p></form><script>document.forms[0].submit()</script>",
        "before",
    ),
    "removes its document": script("document.documentElement.remove()", ""),
    "replaces what we call": always(
        f"{STYLE}<p>before</p><script>for(const o of [Document,Node,Element,Range,Text,JSON,Array,Reflect,Object])"
        "for(const k of Object.getOwnPropertyNames(o.prototype??o))try{(o.prototype??o)[k]=()=>'fake'}catch{}</script>",
        "before",
    ),
    "invalid UTF-8": always(
        b"<meta charset=utf-8><p>caf\xe9 \xff\xfe \xc3\xa9 \xf0\x9f", "caf\ufffd \ufffd\ufffd \u00e9 \ufffd"
    ),
    "invalid UTF-8, no charset": always(b"<p>caf\xe9 \xc3\xa9", "caf\ufffd \u00e9"),
    "NUL bytes": always(b"<p>a\0b", "ab"),
    "lone surrogate": always("<p>a\ud800b", "a\ufffdb"),
    "crashes its renderer": always(f"{STYLE}{CRASH.decode()}", PageCrashError),
}
KILLER = always(f"{STYLE}{KILL.decode()}", PageCrashError)
"""Kept apart from the others: each of them in flight would have a second try, and so twice the time."""


async def misbehave(browser, tab, html):
    """What a page that exploits Chromium could do to its own renderer or to the whole browser."""
    if CRASH in html:
        await tab.crash()
    if KILL in html:
        os.killpg(browser.pid, signal.SIGKILL)


@pytest.fixture(scope="module", params=BOTH, ids=lambda scripts: f"scripts {scripts.value}")
def warm(request):
    config = RenderConfig(
        viewport_width_px=400, viewport_height_px=300, scripts=request.param, timeout_s=LIMIT_S, pages_in_flight=4
    )
    with Renderer(config, watch=misbehave) as renderer:
        renderer.render("<p>warm")
        yield renderer


@pytest.fixture(scope="module")
def ends(warm):
    """How each hostile page ended, and after how long; several are in flight at a time."""

    def end_of(name):
        started = time.monotonic()
        (result,) = warm.render_many([PAGES[name].html])
        return result, time.monotonic() - started

    with ThreadPoolExecutor(4) as threads:
        return dict(zip(PAGES, threads.map(end_of, PAGES), strict=True))


@pytest.mark.parametrize("name", PAGES)
def test_hostile_page_ends_within_its_limits(warm, ends, name):
    result, took_s = ends[name]
    expected = PAGES[name].off if warm.config.scripts is Scripts.OFF else PAGES[name].on
    assert took_s < LIMIT_S + CLEAN_UP_S
    if isinstance(result, Page):
        assert " ".join(block.text for block in result.texts) in expected
        with Image.open(io.BytesIO(result.png)) as picture:
            assert picture.size == (400, result.height_px)
    else:
        assert type(result) in expected


def test_page_that_kills_the_browser(warm):
    (result,) = warm.render_many([KILLER.html])
    assert type(result) in KILLER.on


def test_renderer_works_after_all_of_them(warm, ends):
    assert len(ends) == len(PAGES) >= 25
    after = list(warm.render_many(f"<p>page {index}" for index in range(12)))
    assert [[block.text for block in page.texts] for page in after] == [[f"page {index}"] for index in range(12)]


def test_infinite_animation_has_one_picture(warm):
    assert len({warm.render(PAGES["infinite animation"].html).png for _ in range(6)}) == 1


MOVING = {
    "css": "<style>@keyframes a{0%{left:0}50%{left:90px}}b{position:relative;animation:a .1s infinite}</style><b>x",
    "finite": "<style>@keyframes a{0%{left:0}50%{left:90px}}b{position:relative;animation:a 9s both}</style><b>x",
    "transition": "<style>b{opacity:1;transition:9s}@starting-style{b{opacity:0}}</style><b>x",
    "marquee": "<marquee>moving along</marquee>",
    "smil": "<svg><rect width=9 height=9><animate attributeName=x values='0;90' dur=.1s repeatCount=indefinite>",
    "shadow": "<div><template shadowrootmode=open><style>@keyframes a{0%{left:0}50%{left:90px}}"
    "b{position:relative;animation:a .1s infinite}</style><b>x</b></template></div>",
}  # fmt: skip


@pytest.mark.parametrize("name", MOVING)
def test_moving_page_has_one_picture(warm, name):
    # The delay by scripts, where they run, makes each look come at another time.
    html = STYLE + MOVING[name] + "<script>let t=Date.now();while(Date.now()<t+Math.random()*60);</script>"
    assert len({warm.render(html, Capture.PICTURE).png for _ in range(5)}) == 1


def test_animated_picture_shows_its_first_frame(warm, pixels_of):
    file = io.BytesIO()
    red, blue = Image.new("RGB", (50, 50), "red"), Image.new("RGB", (50, 50), "blue")
    red.save(file, "GIF", save_all=True, append_images=[blue], duration=10, loop=0)
    source = f"data:image/gif;base64,{base64.b64encode(file.getvalue()).decode()}"
    html = f"{STYLE}<img src='{source}'><script>let t=Date.now();while(Date.now()<t+100);</script>"
    assert (pixels_of(warm.render(html))[:50, :50] == (255, 0, 0)).all()


REFERENCES = """<img src='{url}.png'><link rel=stylesheet href='{url}.css'><link rel=prefetch href='{url}.html'>
<link rel=preconnect href='{url}.html'><link rel=icon href='{url}.png'><script src='{url}.js'></script>
<script type=module>import '{url}.js'</script><iframe src='{url}.html'></iframe><object data='{url}.html'></object>
<embed src='{url}.html'><video src='{url}.mp4' poster='{url}.png' autoplay></video>
<audio src='{url}.mp4' autoplay></audio>
<style>@import '{url}.css';@font-face{{font-family:x;src:url({url}.ttf)}}p{{font-family:x;background:url({url}.png)}}
li{{list-style-image:url({url}.png)}}</style><p>visible<ul><li>item</ul>
<svg><image href='{url}.png' width=50 height=50 />
<use href='{url}.svg#a' /></svg><input type=image src='{url}.png'><iframe srcdoc="<img src='{url}.png'>"></iframe>
<iframe src='data:text/html,<img src={url}.png>'></iframe>
<script>
fetch('{url}.html').then(r=>r.text()).then(t=>document.body.append(t)).catch(()=>0);
try{{let r=new XMLHttpRequest();r.open('GET','{url}.html',false);r.send();
document.body.append(r.responseText)}}catch{{}}
try{{new WebSocket('{url}'.replace('http','ws'))}}catch{{}}
try{{new EventSource('{url}')}}catch{{}}
try{{new Worker('{url}.js')}}catch{{}}
try{{navigator.sendBeacon('{url}')}}catch{{}}
try{{new RTCPeerConnection({{iceServers:[{{urls:'stun:127.0.0.1:9'}}]}}).createDataChannel('x')}}catch{{}}
new Image().src='{url}.png';open('{url}.html');
</script>"""


@pytest.fixture
def visitors():
    """A web server on this machine, and the requests that reached it."""
    seen = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_HEAD = do_OPTIONS = do_GET

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_nothing_is_fetched_from_the_network(warm, visitors, host):
    port, seen = visitors
    page = warm.render(STYLE + REFERENCES.format(url=f"http://{host}:{port}/outside"))
    assert "visible" in [block.text for block in page.texts]
    time.sleep(0.1)
    assert seen == []


def test_files_of_the_machine_stay_there(warm, tmp_path, pixels_of):
    hidden_word = "vermilion-otter-4711"
    Image.new("RGB", (60, 60), (255, 0, 0)).save(tmp_path / "there.png")
    (tmp_path / "there.html").write_text(f"<body style='background:#f00'>{hidden_word}")
    (tmp_path / "there.css").write_text("body{background:#f00!important}")
    (tmp_path / "there.js").write_text(f"document.body.style.background='#f00';document.title='{hidden_word}'")
    (tmp_path / "there.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><rect id='a' fill='#f00'/></svg>")
    found = warm.render(STYLE + REFERENCES.format(url=f"file://{tmp_path}/there"))
    missing = warm.render(STYLE + REFERENCES.format(url=f"file://{tmp_path}/gone!"))
    assert np.array_equal(pixels_of(found), pixels_of(missing))
    assert not (pixels_of(found) == (255, 0, 0)).all(axis=2).any()
    assert not any(hidden_word in block.text for block in found.texts)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "file:///", "chrome://version", "view-source:file:///etc/passwd"]
)
def test_frames_and_links_show_nothing_of_the_machine(warm, pixels_of, url):
    html = STYLE + "<iframe src='URL' width=380 height=200></iframe><script>try{location='URL'}catch{}</script>"
    page = warm.render(html.replace("URL", url))
    nothing = warm.render(html.replace("location='URL'", "").replace("URL", "https://example.com/"))
    assert page.texts == ()
    assert np.array_equal(pixels_of(page), pixels_of(nothing))


def test_what_a_page_declares_does_not_reach_the_next(warm):
    plain = f"{STYLE}<style title=one>p{{color:#123}}</style><p style='background:#fed'>text"
    before = warm.render(plain)
    for head in (
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">",
        "<meta http-equiv=default-style content=other><style title=other>p{color:red}</style>",
        "<meta name=color-scheme content=dark><meta name=referrer content=origin><base href='https://example.com/x/'>",
        "<style>@property --x{syntax:'<color>';inherits:true;initial-value:red}@font-face{font-family:serif}</style>",
        "<script>document.cookie='a=b';document.designMode='on';history.pushState(0,0,'#x');scrollTo(0,99)</script>",
    ):
        for _ in range(2):
            warm.render(head + plain)
            assert warm.render(plain) == before
