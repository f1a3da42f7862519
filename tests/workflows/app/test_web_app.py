"""The app in a real browser, as a person uses it: with a mouse, with a keyboard alone, and with a stranger's pages."""

import base64
import contextlib
import hashlib
import io
import json
import re
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from lensmith.workflows.app.store import Store
from tests.support.packages import png
from tests.support.web_app import App, Scribe, Trap, axe_script, chromium, faults

WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
DOT = f"data:image/png;base64,{base64.b64encode(png(24, 24)).decode()}"
PAGE = (
    "<!doctype html><html lang=en><head><title>Shop</title><style>body{margin:0;font:16px Arial}"
    "header{background:#234;color:#fff;padding:20px}p{padding:0 20px}</style></head><body>"
    f'<header>Corner shop</header><p id="words">Bread and butter</p><p><img src="{DOT}" alt="a dot"></p></body></html>'
)
LIMIT_MS = 40_000
expect.set_options(timeout=LIMIT_MS)


def screenshot() -> bytes:
    picture = Image.new("RGB", (640, 360), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 639, 57), fill="#223344")
    draw.text((20, 20), "Corner shop", fill="white")
    draw.rectangle((420, 200, 600, 320), fill="#c03030")
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


SCREENSHOT = screenshot()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def scribe():
    with Scribe(PAGE) as found:
        yield found


@pytest.fixture(scope="module")
def app(scribe, tmp_path_factory):
    """The app with a model that writes PAGE: its conversions take a second."""
    folder = tmp_path_factory.mktemp("app") / "projects"
    with App(folder, "--engine", "model", "--endpoint", scribe.url, "--model", "scribe") as found:
        found.store = Store(folder)
        yield found


@pytest.fixture
def page(browser, app, scribe):
    """A tab at the start page. Whatever goes wrong in its scripts fails the test."""
    scribe.page, scribe.pause_s = PAGE, 0.03
    with tab(browser, app.url) as found:
        yield found


@pytest.fixture(scope="module")
def kept(browser, app):
    """The address of a project with one version, for tests that change nothing."""
    with tab(browser, app.url) as found:
        choose(found, SCREENSHOT)
        made(found)
        return found.url


@pytest.fixture
def desk(browser, kept):
    """A tab at that project."""
    with tab(browser, kept) as found:
        made(found)
        yield found


@contextlib.contextmanager
def tab(browser, url, viewport=WIDE):
    context = browser.new_context(viewport=viewport, permissions=["clipboard-read", "clipboard-write"])
    errors = []
    found = context.new_page()
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.goto(url)
    found.wait_for_function("window.did_handshake")
    yield found
    context.close()
    assert errors == []


DROP = """async ([data, name, kind]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: kind}));
  for (const event of ["dragenter", "dragover", "drop"]) {
    const target = document.querySelector("h1");
    target.dispatchEvent(new DragEvent(event, {dataTransfer: transfer, bubbles: true, cancelable: true}));
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (event === "dragover") window.wasVeiled = getComputedStyle(document.querySelector(".veil")).display !== "none";
  }
}"""
PASTE = """([data]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "image.png", {type: "image/png"}));
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true}));
}"""


def drop(page: Page, data: bytes, name: str = "shot.png", kind: str = "image/png") -> None:
    page.evaluate(DROP, [base64.b64encode(data).decode(), name, kind])


def paste(page: Page, data: bytes) -> None:
    page.evaluate(PASTE, [base64.b64encode(data).decode()])


def choose(page: Page, data: bytes) -> None:
    file = {"name": "shot.png", "mimeType": "image/png", "buffer": data}
    page.locator("[data-opens]").first.set_input_files(file)


def made(page: Page) -> None:
    """Waits until the first version is there."""
    expect(page.locator(".badge")).to_contain_text("Version 1")


def look(page: Page, view: str) -> None:
    page.get_by_role("radio", name=view, exact=True).check(force=True)


def project_of(app, page: Page):
    return app.store.project(page.url.partition("project=")[2])


def live_text(page: Page):
    return page.frame_locator(".device iframe").locator("body")


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("way", [drop, paste, choose])
def test_a_screenshot_that_comes_in_any_way_becomes_a_page(page, app, way):
    way(page, SCREENSHOT)
    page.wait_for_url("**/?project=*")
    made(page)
    project = project_of(app, page)
    assert project.name == ("Pasted screenshot" if way is paste else "shot.png")
    assert project.picture().size == (640, 360)
    (version,) = project.versions()
    assert version.made_by == "model" and version.overall is not None
    assert "Bread and butter" in project.html(1)
    expect(page.locator(".total strong")).to_have_text(f"{version.overall:.0%}")


@pytest.mark.slow
def test_what_is_dragged_over_the_page_is_awaited(page):
    drop(page, SCREENSHOT)
    page.wait_for_url("**/?project=*")
    drop(page, b"", "empty.png")
    assert page.evaluate("window.wasVeiled")


def test_it_is_watched_as_it_is_written(page, scribe):
    scribe.pause_s = 0.25
    choose(page, SCREENSHOT)
    expect(page.locator(".progress")).to_contain_text("a model writes the page")
    expect(page.locator(".stream")).to_contain_text("Corner shop")
    expect(live_text(page)).to_contain_text("Corner shop")
    expect(page.locator(".badge")).not_to_contain_text("Version 1", timeout=1)
    made(page)
    expect(page.locator(".progress")).to_be_hidden()
    expect(page.locator(".stream")).to_be_hidden()


@pytest.mark.slow
def test_what_is_made_can_be_stopped(page, app, scribe):
    scribe.pause_s = 1.0
    choose(page, SCREENSHOT)
    expect(page.locator(".stream")).to_contain_text("Shop")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#alert")).to_contain_text("Nothing was kept")
    assert project_of(app, page).versions() == []


def test_the_slider_shows_more_of_the_one_or_of_the_other(desk):
    page = desk
    look(page, "Slider")
    wipe = page.locator(".wipe")
    shown = "() => getComputedStyle(document.querySelector('.wipe .target')).clipPath"
    box = wipe.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 20)
    assert wipe.evaluate("(each) => each.style.getPropertyValue('--cut')") == "25%"
    quarter = page.evaluate(shown)
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20, steps=5)
    page.mouse.up()
    assert wipe.evaluate("(each) => each.style.getPropertyValue('--cut')") == "90%"
    assert page.evaluate(shown) != quarter
    page.keyboard.press("ArrowLeft")
    assert wipe.evaluate("(each) => each.style.getPropertyValue('--cut')") == "89%"


def test_the_difference_shows_where_the_score_was_lost(desk, app):
    page = desk
    (version,) = project_of(app, page).versions()
    assert version.places
    values = page.locator(".terms td.lost").all_text_contents()
    assert abs(sum(map(float, values)) - 100 * (1 - version.overall)) < 0.3
    page.locator(".place").first.click()
    expect(page.get_by_role("radio", name="Difference")).to_be_checked()
    expect(page.locator(".mark")).to_have_count(len(version.places))
    expect(page.locator(".mark.pointed")).to_have_text("1")
    picture, mark = page.locator(".marked img").bounding_box(), page.locator("#place-1").bounding_box()
    worst = version.places[0]
    scale = picture["width"] / 640
    assert abs(mark["x"] - picture["x"] - worst.left_px * scale) < 2
    assert abs(mark["width"] - worst.width_px * scale) < 2


def type_into_code(page: Page, text: str) -> None:
    """Types at the very beginning of the words of the page."""
    look(page, "Code")
    page.locator(".cm-content").click()
    page.keyboard.press("Control+Home")
    page.keyboard.type(text)


def test_an_edit_is_seen_at_once_and_kept_beside_what_was(page, app):
    choose(page, SCREENSHOT)
    made(page)
    project = project_of(app, page)
    before = files_in(project.folder)
    look(page, "Code")
    code = page.locator(".cm-content")
    expect(code).to_contain_text("pictures/1.png")
    expect(page.get_by_role("button", name="Keep as a version")).to_be_disabled()
    page.keyboard.press("Tab")
    code.click()
    page.keyboard.press("Control+End")
    for _ in range(len("</body></html>")):
        page.keyboard.press("ArrowLeft")
    page.keyboard.type("<p>Milk, too")
    expect(page.get_by_role("radio", name="Live page")).to_be_checked()
    expect(live_text(page)).to_contain_text("Milk, too")
    assert [version.number for version in project.versions()] == [1]
    page.keyboard.press("Control+s")
    expect(page.locator(".badge")).to_contain_text("Version 2")
    second = project.version(2)
    assert (second.made_by, second.parent) == ("edit", 1)
    assert "Milk, too" in project.html(2) and DOT in project.html(2)
    assert "Milk, too" not in project.html(1)
    assert before.items() <= files_in(project.folder).items()

    look(page, "Versions")
    expect(page.locator(".version")).to_have_count(2)
    page.get_by_role("button", name=re.compile("^Version 1 ")).click()
    expect(page.locator(".badge")).to_contain_text("Version 1")
    look(page, "Code")
    expect(code).not_to_contain_text("Milk, too")


@pytest.mark.slow
def test_an_edit_is_not_lost_by_turning_to_another_version_or_by_going_away(page, app):
    choose(page, SCREENSHOT)
    made(page)
    project = project_of(app, page)
    type_into_code(page, "<!--one-->")
    expect(page.get_by_role("button", name="Keep as a version")).to_be_enabled()
    look(page, "Versions")
    page.get_by_role("button", name=re.compile("^Version 1 ")).click()
    expect(page.locator(".version")).to_have_count(2)
    type_into_code(page, "<!--two-->")
    expect(page.get_by_role("button", name="Keep as a version")).to_be_enabled()
    page.goto(app.url)
    wait_until(lambda: len(project.versions()) == 3)
    assert project.html(2).startswith("<!--one-->") and "<!--two-->" in project.html(3)


def wait_until(holds, limit_s=25):
    ends = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.slow
def test_a_change_is_asked_for_in_words(page, app, scribe):
    choose(page, SCREENSHOT)
    made(page)
    scribe.page = (
        PAGE.replace("Bread and butter", "Cheese").replace(DOT, "pictures/1.png") + "<script>alert(1)</script>"
    )
    look(page, "Ask")
    page.get_by_role("button", name="Change the page").click()
    expect(page.get_by_text("Say first what should change.")).to_be_visible()
    page.get_by_label("What should change?").fill("Sell cheese instead")
    page.get_by_role("button", name="Change the page").click()
    expect(page.locator(".badge")).to_contain_text("Version 2")
    project = project_of(app, page)
    assert "Sell cheese instead" in scribe.asked[-1] and "pictures/1.png" in scribe.asked[-1]
    assert DOT not in scribe.asked[-1]
    assert "Cheese" in project.html(2) and DOT in project.html(2) and "<script" not in project.html(2)
    assert (project.version(2).made_by, project.version(2).note) == ("change", "Sell cheese instead")


def test_it_is_downloaded_and_copied(desk, app):
    page = desk
    html = project_of(app, page).html(1)
    with page.expect_download() as html_download:
        page.get_by_role("link", name="Download the page as one HTML file").click()
    assert html_download.value.suggested_filename == "shot.html"
    assert Path(html_download.value.path()).read_text() == html
    with page.expect_download() as zip_download:
        page.get_by_role("link", name="Download a ZIP").click()
    with zipfile.ZipFile(zip_download.value.path()) as archive:
        index, picture = archive.namelist()
        assert index == "index.html"
        assert archive.read(picture) == png(24, 24)
        assert f'src="{picture}"' in archive.read(index).decode()
    page.get_by_role("button", name="Copy HTML").click()
    expect(page.get_by_text("The HTML is in the clipboard.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == html


def test_a_copy_that_the_browser_refuses_is_not_told_as_done(desk):
    page = desk
    page.context.clear_permissions()
    page.get_by_role("button", name="Copy HTML").click()
    expect(page.get_by_text("The browser does not let this page write to the clipboard.")).to_be_visible()
    expect(page.get_by_text("The HTML is in the clipboard.")).to_have_count(0)


@pytest.mark.slow
def test_frames_are_as_wide_as_their_devices(desk):
    page = desk
    look(page, "Live page")
    for device, width in (("Phone", 390), ("Tablet", 768), ("Desktop", 1280), ("As shot", 640)):
        look(page, device)
        expect(page.locator(".device iframe")).to_have_css("width", f"{width}px")
    page.set_viewport_size(PHONE)
    look(page, "Desktop")
    room = page.locator(".canvas").bounding_box()["width"]
    wait_until(lambda: page.locator(".device").bounding_box()["width"] <= room)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_with_the_keyboard_alone(page, app):
    def tab_to(locator):
        for _ in range(60):
            if locator.evaluate("(each) => each === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {locator}")

    tab_to(page.locator("[data-opens]"))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files({"name": "typed.png", "mimeType": "image/png", "buffer": SCREENSHOT})
    page.wait_for_url("**/?project=*")
    made(page)
    view = page.get_by_role("radio", name="Slider")
    expect(view).to_be_checked()
    tab_to(view)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Side by side")).to_be_checked()
    page.keyboard.press("ArrowLeft")
    tab_to(page.locator(".wipe input"))
    page.keyboard.press("ArrowRight")
    assert page.locator(".wipe").evaluate("(each) => each.style.getPropertyValue('--cut')") == "51%"
    tab_to(page.get_by_role("radio", name="Score"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Code")).to_be_checked()
    tab_to(page.locator(".cm-content"))
    page.keyboard.type("<!--typed-->")
    page.keyboard.press("Control+s")
    expect(page.locator(".badge")).to_contain_text("Version 2")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert not page.locator(".cm-content").evaluate("(each) => each === document.activeElement")
    page.keyboard.press("Shift+Tab")
    project = project_of(app, page)
    assert "<!--typed-->" in project.html(2)


def test_axe_finds_nothing_serious(desk, app, browser):
    script = axe_script()
    page = desk
    for panel in ("Score", "Code", "Versions", "Ask"):
        look(page, panel)
        page.wait_for_timeout(200)
        assert faults(page, script) == [], panel
    for view in ("Slider", "Side by side", "Difference", "Live page"):
        look(page, view)
        page.wait_for_timeout(100)
        assert faults(page, script) == [], view
    drop(page, b"no picture")
    expect(page.locator("#alert")).not_to_be_empty()
    assert faults(page, script) == []
    for viewport in (WIDE, PHONE):
        with tab(browser, app.url, viewport) as start:
            expect(start.locator(".card").first).to_be_visible()
            assert faults(start, script) == []
        with tab(browser, page.url, viewport) as other:
            made(other)
            assert faults(other, script) == []
    page.emulate_media(color_scheme="dark")
    for panel in ("Score", "Code", "Versions"):
        look(page, panel)
        page.wait_for_timeout(300)
        assert faults(page, script) == [], f"{panel}, dark"


@pytest.mark.slow
def test_what_cannot_be_read_is_said(page, app):
    before = len(app.store.projects())
    for data, said in (
        (b"no picture at all", "not a picture that can be read"),
        (b"", "is empty"),
        (SCREENSHOT[:300], "damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ):
        drop(page, data)
        expect(page.locator("#alert")).to_contain_text(said)
    assert len(app.store.projects()) == before
    choose(page, SCREENSHOT)  # and the next one works
    made(page)


@pytest.mark.slow
def test_a_picture_with_too_many_pixels_is_said(page):
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    drop(page, stream.getvalue())
    expect(page.locator("#alert")).to_contain_text("too large")


@pytest.mark.slow
def test_two_tabs_do_not_disturb_each_other(page, app, browser):
    with tab(browser, app.url) as other:
        choose(page, SCREENSHOT)
        choose(other, SCREENSHOT)
        made(page)
        made(other)
        assert page.url != other.url
        other.goto(page.url)
        made(other)
        type_into_code(page, "<!--first-->")
        page.keyboard.press("Control+s")
        expect(page.locator(".badge")).to_contain_text("Version 2")
        expect(other.locator(".badge")).to_contain_text("Version 2")
        type_into_code(other, "<!--second-->")
        other.keyboard.press("Control+s")
        expect(other.locator(".badge")).to_contain_text("Version 3")
    project = project_of(app, page)
    assert [version.parent for version in project.versions()] == [None, 1, 2]


def test_a_stranger_gets_nothing(app):
    port = int(re.search(r":(\d+)/", app.url)[1])
    root = f"http://127.0.0.1:{port}/"
    key = app.url.removeprefix(root)
    evil = {"Origin": "http://evil.example"}
    assert httpx.get(app.url).status_code == 200
    assert httpx.get(root).status_code == 403
    assert httpx.get(app.url, headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{root}_nicegui/x").status_code == 403
    before = len(app.store.projects())
    assert httpx.post(f"{app.url}screenshots", content=SCREENSHOT, headers=evil).status_code == 403
    assert httpx.post(f"{root}wrong/screenshots", content=SCREENSHOT).status_code == 403
    assert len(app.store.projects()) == before
    socket = f"{app.url}_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    handshake["Sec-WebSocket-Key"] = base64.b64encode(b"0123456789abcdef").decode()
    assert httpx.get(socket, headers=handshake | evil).status_code == 403
    assert key not in httpx.get(root).text


def hostile(trap: Trap) -> str:
    at = f"http://127.0.0.1:{trap.port}/"
    return f"""<!doctype html><html><head>
<base href="{at}"><meta http-equiv="refresh" content="0;url={at}refresh">
<link rel="preconnect" href="{at}"><link rel="dns-prefetch" href="{at}"><link rel="prefetch" href="{at}prefetch">
<link rel="preload" as="image" href="{at}preload"><link rel="modulepreload" href="{at}module">
<link rel="stylesheet" href="{at}style.css"><link rel="icon" href="{at}icon"><link rel="manifest" href="{at}manifest">
<style>@import url("{at}import.css"); @font-face{{font-family:x;src:url({at}font)}}
body{{background:url({at}background);font-family:x;cursor:url({at}cursor),auto}}</style>
<script>fetch("{at}fetch"); top.document.title = "taken"; parent.postMessage("taken", "*"); alert("taken")</script>
<script src="{at}script.js"></script></head>
<body onload="location='{at}onload'"><h1>Hostile words</h1>
<img src="{at}img" srcset="{at}srcset 2x" onerror="new Image().src='{at}onerror'"><img src=x onerror="location='{at}'">
<iframe src="{at}iframe"></iframe><iframe srcdoc="<script>fetch('{at}srcdoc')</script>"></iframe>
<object data="{at}object"></object><embed src="{at}embed"><video src="{at}video" poster="{at}poster" autoplay></video>
<audio src="{at}audio" autoplay></audio><input type="image" src="{at}input">
<svg><image href="{at}svg"/><use href="{at}use#a"/>
<script>fetch("{at}svgscript")</script></svg>
<form id="f" action="{at}form" method="post"><input name="a" value="b" autofocus onfocus="this.form.submit()">
<button>Send</button></form>
<p><a href="javascript:fetch('{at}javascript')">run</a></p>
<p><a href="{at}link" target="_top" ping="{at}ping">go</a></p>
<p><a href="{at}blank" target="_blank">open</a></p><p><a href="{at}self">self</a></p>
</body></html>"""


def click_everything(page: Page) -> None:
    """Whatever of the stranger's page can be clicked, a person clicks."""
    frame = page.frame_locator(".device iframe")
    for target in ("button", "a", "input"):
        for index in range(frame.locator(target).count()):
            with contextlib.suppress(Exception):
                frame.locator(target).nth(index).click(timeout=500, force=True, no_wait_after=True)
    page.wait_for_timeout(300)


def test_a_strangers_page_runs_nothing_and_reaches_nothing(page, app, scribe):
    trap = Trap()
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    popups = []
    page.context.on("page", lambda popup: popups.append(popup.url))
    scribe.page = hostile(trap)
    choose(page, SCREENSHOT)
    made(page)
    title = page.title()
    look(page, "Live page")
    expect(live_text(page)).to_contain_text("Hostile words")
    click_everything(page)
    # A person pastes the same into the editor: it is shown, and kept as they wrote it.
    look(page, "Code")
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(hostile(trap).replace("Hostile words", "Pasted words"))
    expect(live_text(page)).to_contain_text("Pasted words")
    click_everything(page)
    page.keyboard.press("Control+s")
    page.locator(".cm-content").press("Control+s")
    expect(page.locator(".badge")).to_contain_text("Version 2")
    for number in (1, 2):
        made_page = page.context.new_page()
        made_page.goto(f"{app.url}projects/{project_of(app, page).id}/{number}/page")
        expect(made_page.locator("h1")).to_contain_text("words")
        made_page.wait_for_timeout(300)
    assert trap.callers == []
    assert dialogs == []
    assert page.title() == title and len(popups) == 2
    # The trap works: a plain page of the same browser is seen at once.
    with contextlib.suppress(Exception):
        made_page.goto(f"http://127.0.0.1:{trap.port}/", timeout=2000)
    wait_until(lambda: trap.callers)
    trap.close()


@pytest.mark.slow
def test_ctrl_c_ends_it_and_another_finds_all(browser, scribe, tmp_path):
    scribe.page, scribe.pause_s = PAGE, 0.03
    arguments = ("--engine", "model", "--endpoint", scribe.url, "--model", "scribe")
    with App(tmp_path / "kept", *arguments) as app:
        with tab(browser, app.url) as page:
            choose(page, SCREENSHOT)
            made(page)
            assert app.stop() == 0
        assert "Traceback" not in app.log.read_text()
    before = files_in(tmp_path / "kept")
    with App(tmp_path / "kept", *arguments) as again:
        assert again.url != app.url
        with tab(browser, again.url) as page:
            page.get_by_role("link", name="shot.png").click()
            made(page)
            expect(page.locator(".total strong")).to_contain_text("%")
        again.stop()
    assert files_in(tmp_path / "kept") == before
    assert json.loads(next((tmp_path / "kept").glob("*/1/version.json")).read_bytes())["number"] == 1


@pytest.mark.slow
def test_without_any_model_a_screenshot_is_rebuilt_and_its_drafts_are_seen(browser, tmp_path):
    with App(tmp_path / "kept", "--engine", "layout") as app, tab(browser, app.url) as page:
        choose(page, SCREENSHOT)
        expect(page.locator(".progress")).to_contain_text("the text")
        expect(page.locator(".badge")).to_contain_text("Version 1", timeout=60_000)
        (version,) = Store(tmp_path / "kept").projects()[0].versions()
        assert version.made_by == "layout" and version.overall > 0.7
        look(page, "Ask")
        expect(page.get_by_text("lensmith app --endpoint URL --model NAME")).to_be_visible()
        assert app.stop() == 0


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_page_that_is_being_made(browser, tmp_path):
    with App(tmp_path / "kept", "--engine", "layout") as app, tab(browser, app.url) as page:
        choose(page, SCREENSHOT)
        expect(page.locator(".progress")).to_contain_text("Converting")
        assert app.stop() == 0
        assert "Traceback" not in app.log.read_text()
    (project,) = Store(tmp_path / "kept").projects()
    assert project.versions() == [] and project.picture().size == (640, 360)
