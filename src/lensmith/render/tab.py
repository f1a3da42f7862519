"""One long-lived page of the browser: loads a document, measures it, takes its picture.

The document is our answer to a navigation that we intercept, so it is loaded as from a web server: bytes decoded as a
browser decodes them, a fresh document each time, and a content security policy in the response's header, where the
page cannot touch it. Every other request is refused; or, for a page that may read a folder (see `assets`), answered
from there. Measuring runs in an isolated world: the page's scripts share no object with it.
"""

import asyncio
import base64
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from lensmith.core.errors import PageTooLargeError, RenderError
from lensmith.core.types import Page
from lensmith.render.assets import ORIGIN, Asset, AssetDoor, Assets
from lensmith.render.config import Capture, Extent, RenderConfig, Scripts
from lensmith.render.devtools import Connection, Json, ProtocolError, SessionLostError
from lensmith.render.measured import nested_nodes, page_of, put_frame
from lensmith.render.strips import PngJoiner, strips

WINDOW_PX = 64
ADDRESS = f"{ORIGIN}/"
MAX_NOTES = 20
"""The most boxes that scroll which are named, those that hide most."""
SETTLE_ROUNDS = 8
"""How often, at most, what was loaded may make the page ask for more once it is laid out."""
SETTLE_LIMIT_S = 2.0
"""How long, at most, one such round takes."""
_LISTED_NODES = 10
"""Times `max_nodes`: how many nodes the renderer may have in all before its tree is no longer listed."""
_NESTS = re.compile(rb"s\0?h\0?a\0?d\0?o\0?w\0?r\0?o\0?o\0?t|i\0?f\0?r\0?a\0?m\0?e", re.IGNORECASE)
_DECLARES_ENCODING = re.compile(rb"<meta[^>]+charset", re.IGNORECASE)
_MEASURE = files("lensmith.render").joinpath("measure.js").read_text(encoding="utf-8")

# Through prototypes, as <img name=fonts> would stand in front of what is called. All of the page is pictured: what is
# loaded only where scripts run and somebody scrolls to it is asked for. No event tells of frames and objects from
# elsewhere, nor of films and sounds: they are found where they are named.
_SETTLE = f"""async () => {{
  await Reflect.get(Document.prototype, "fonts", document).ready;
  const all = (what) => [...Reflect.apply(Document.prototype.querySelectorAll, document, [what])].slice(0, 1000);
  for (const each of all("[loading=lazy i]")) each.loading = "eager";
  const framed = all("iframe, frame, embed, object").map((each) => each.data ?? each.src);
  const played = all("video, audio, video > source, audio > source").map((each) => each.src);
  return [...framed.filter((url) => !url.startsWith("{ORIGIN}/")), ...played].map((url) => url.slice(0, 2000));
}}"""
_UNSEEN = ("Prefetch", "Preflight", "Ping", "CSPViolationReport", "Manifest")
"""Requests that no picture depends on."""


def _policy(scripts: Scripts, own: str = "") -> str:
    """The content security policy; `own` is what a page may load besides what it holds itself."""
    # The sandbox takes away dialogs, popups, forms, downloads and the page's origin; and, unless scripts may run, they
    # and meta refresh.
    loads = f"img-src data: blob:{own}; font-src data:{own}; style-src 'unsafe-inline' data:{own}"
    frames = f"frame-src{own}; object-src{own}; " if own else ""
    runs = f"script-src 'unsafe-inline' 'unsafe-eval'{own}; sandbox allow-scripts"
    return f"default-src 'none'; {loads}; {frames}webrtc 'block'; {runs if scripts is Scripts.ON else 'sandbox'}"


class Tab:
    """A page in a browser context of its own, so that it shares its renderer process with no other."""

    def __init__(self, connection: Connection, config: RenderConfig, target: str, session: str, context: str) -> None:
        self._connection = connection
        self._config = config
        self._target = target
        self._session = session
        self._context = context
        self._pending: Json | None = None
        self._loaded: asyncio.Future[Json] | None = None
        self._bound_for = ""
        self._at = ""
        self._door: AssetDoor | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._asked: dict[str, str] = {}  # addresses of requests that are not answered yet
        self._quiet = asyncio.Event()  # there are none
        self.renders = 0
        self.lost = False

    @classmethod
    async def open(cls, connection: Connection, config: RenderConfig) -> "Tab":
        """Raises ProtocolError, SessionLostError or ConnectionLostError."""
        context = (await connection.send("Target.createBrowserContext"))["browserContextId"]
        try:
            where = {"url": "about:blank", "browserContextId": context}
            target = (await connection.send("Target.createTarget", where))["targetId"]
            attach = {"targetId": target, "flatten": True}
            session = (await connection.send("Target.attachToTarget", attach))["sessionId"]
            tab = cls(connection, config, target, session, context)
            connection.listen(session, tab._on_event)
            await tab._prepare()
        except BaseException:
            connection.send("Target.disposeBrowserContext", {"browserContextId": context})
            raise
        return tab

    async def close(self) -> None:
        """Closes the page and ends its renderer, hung or not. Raises ProtocolError or ConnectionLostError."""
        self.lost = True
        self._connection.drop_session(self._session)
        await self._connection.send("Target.disposeBrowserContext", {"browserContextId": self._context})

    async def crash(self) -> None:
        """Kills the renderer process, as a page that exploits or exhausts it would. For tests."""
        await self._call("Page.crash")

    async def clear(self) -> None:
        """Leaves the page, whose scripts would otherwise run on until the next one comes, or hang it."""
        await self._go("about:blank")

    async def render(self, html: bytes, encoding: str, capture: Capture, assets: Assets | None = None) -> Page:
        """Raises RenderError, SessionLostError when the renderer dies, ConnectionLostError when the browser does."""
        self.renders += 1
        door = self._door = None if assets is None else AssetDoor(assets)
        try:
            frame = await self._load(html, encoding)
            if door is not None:
                await self._settle(frame, door)
            found = await self._measure(frame, html, capture)
            width_px, height_px = self._checked_size(found)
            png = await self._picture(width_px, height_px) if Capture.PICTURE in capture else b""
        except ProtocolError as error:
            raise RenderError("the page changed while it was rendered", actual=error) from error
        finally:
            self._shut()
        self._check_place()
        page = page_of(found, width_px, height_px, png, has_texts=Capture.TEXTS in capture)
        return page if door is None else replace(page, notes=page.notes + door.notes())

    async def _prepare(self) -> None:
        config = self._config
        metrics = {
            "width": config.viewport_width_px,
            "height": config.viewport_height_px,
            "deviceScaleFactor": config.scale,
            "mobile": False,
            "dontSetVisibleSize": True,
        }
        light = [{"name": "prefers-color-scheme", "value": "light"}]
        await self._call("Page.enable")
        await self._call("Animation.enable")
        await self._call("Animation.setPlaybackRate", {"playbackRate": 0})
        await self._call("Inspector.enable")
        await self._call("Fetch.enable", {"patterns": [{"urlPattern": "*"}]})
        await self._call("Emulation.setScriptExecutionDisabled", {"value": config.scripts is Scripts.OFF})
        await self._call("Emulation.setTimezoneOverride", {"timezoneId": "UTC"})
        await self._call("Emulation.setLocaleOverride", {"locale": "en-US"})
        await self._call("Emulation.setEmulatedMedia", {"media": "screen", "features": light})
        # Layout sees the emulated metrics. The window itself is tiny, so that the frames which are drawn before and
        # after the capture, and which nobody looks at, cost next to nothing: a quarter of all the work on a page.
        await self._call("Emulation.setDeviceMetricsOverride", metrics)
        window = await self._connection.send("Browser.getWindowForTarget", {"targetId": self._target})
        size = {"windowId": window["windowId"], "width": WINDOW_PX, "height": WINDOW_PX}
        await self._connection.send("Browser.setContentsSize", size)

    async def _call(self, method: str, params: Json | None = None) -> Json:
        if self.lost:
            raise SessionLostError("the page is gone")
        return await self._connection.send(method, params, self._session)

    async def _load(self, html: bytes, encoding: str) -> str:
        """The id of the frame that holds the loaded page."""
        address, own = ADDRESS, ""
        if self._door is not None:
            address, own = self._door.address, f" {ORIGIN}"
            # What the policy keeps a page from asking is told by these events alone. They keep no content.
            sizes = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}
            self._connection.send("Network.enable", sizes, self._session)
        policy = _policy(self._config.scripts, own)
        self._pending = _response(html, {"Content-Type": _kind(html, encoding), "Content-Security-Policy": policy})
        answer = await self._go(address)
        self._check_place()
        return str(answer["frameId"])

    async def _go(self, url: str) -> Json:
        """Navigates and waits until the new page has loaded, or has refused to stay."""
        self._bound_for, self._at = url, ""
        loaded = self._loaded = self._connection.expect(self._session)
        answer = await self._call("Page.navigate", {"url": url})
        if answer.get("errorText"):
            raise RenderError("the page could not be loaded", actual=answer["errorText"])
        await loaded
        return answer

    async def _settle(self, frame: str, door: AssetDoor) -> None:
        """Waits for what a page asks for only once it is laid out: its fonts, and pictures that a stylesheet names."""
        call = {"functionDeclaration": _SETTLE, "awaitPromise": True, "returnByValue": True}
        for _ in range(SETTLE_ROUNDS):
            context = {"executionContextId": await self._world(frame)}
            answer = await self._call("Runtime.callFunctionOn", {**call, **context})
            for url in answer["result"].get("value") or ():
                door.refuse(url)
            # Told in order: what the layout asked for is known by now.
            if not self._asked:
                return
            try:
                async with asyncio.timeout(SETTLE_LIMIT_S):
                    await self._quiet.wait()
            except TimeoutError:
                return  # scripts that never cease to ask

    async def _world(self, frame: str) -> int:
        """The execution context of our isolated world in a frame."""
        world = await self._call("Page.createIsolatedWorld", {"frameId": frame, "worldName": "lensmith"})
        return int(world["executionContextId"])

    def _shut(self) -> None:
        """Lets the page that is rendered now read nothing any more."""
        if self._door is None:
            return
        self._door = None
        for task in self._serving:
            task.cancel()
        self._asked.clear()
        if not self.lost:
            self._connection.send("Network.disable", {}, self._session)

    def _check_place(self) -> None:
        if self._at != self._bound_for:
            raise RenderError("the page went elsewhere while it was rendered", actual=self._at)

    async def _measure(self, frame: str, html: bytes, capture: Capture) -> Json:
        wanted = {
            "texts": Capture.TEXTS in capture,
            "elements": Capture.ELEMENTS in capture,
            "chars": Capture.CHARS in capture,
            "lines": Capture.LINES in capture,
            "elementStyles": Capture.STYLES in capture,
            "maxNodes": self._config.max_nodes,
            "maxHeight": self._config.max_height_px,
            "maxNotes": MAX_NOTES,
            "fullPage": self._config.full_page,
            "content": self._config.full_page and self._config.extent is Extent.CONTENT,
            "expand": self._config.expand_scrolling,
            "styles": self._door is not None and self._door.has_styles,
            "shadow": False,
        }
        # Only scripts make shadow trees and frames that the markup does not name.
        if self._config.scripts is Scripts.OFF and not _NESTS.search(html):
            return await self._measure_document(frame, wanted)
        wanted["shadow"] = True
        document = await self._tree()
        if document is None:
            return await self._measure_document(frame, wanted)
        return await self._measure_nested(frame, document, wanted)

    async def _tree(self) -> Json | None:
        """All nodes of the page, in closed shadow trees and frames too; None where they are too many or too deep."""
        nodes = (await self._call("Memory.getDOMCounters"))["nodes"]
        if nodes > _LISTED_NODES * self._config.max_nodes:
            return None  # a list of them takes gigabytes
        try:
            root: Json = (await self._call("DOM.getDocument", {"depth": -1, "pierce": True}))["root"]
        except ProtocolError:  # as DevTools answer where nodes are nested some hundred levels deep
            return None
        finally:
            if not self.lost:
                self._connection.send("DOM.disable", {}, self._session)
        return root

    async def _measure_nested(self, frame: str, document: Json, wanted: Json) -> Json:
        """Measures a document with its closed shadow trees and, one by one, the documents in its frames."""
        nested = list(nested_nodes(document))
        found = await self._measure_document(frame, wanted, [node["backendNodeId"] for node in nested])
        here = ("elements", "chars", "lines", "elementStyles", "fullPage", "content")
        inside = {**wanted, **dict.fromkeys(here, False)}
        # From the last to the first, so that what is put in moves nothing that is still to come.
        for place in reversed(found["frames"]):
            node = nested[place["index"]]
            inner = await self._measure_nested(
                node["frameId"], node["contentDocument"], {**inside, "behind": place["behind"]}
            )
            put_frame(found, place, inner)
        return found

    async def _measure_document(self, frame: str, wanted: Json, nested: Sequence[int] = ()) -> Json:
        """Measures one document; `nested` are the backend ids of what its scripts could not find."""
        context = await self._world(frame)
        handles = [
            self._connection.send(
                "DOM.resolveNode", {"backendNodeId": node, "executionContextId": context}, self._session
            )
            for node in nested
        ]
        objects = [{"objectId": (await handle)["object"]["objectId"]} for handle in handles]
        call = {
            "functionDeclaration": _MEASURE,
            "executionContextId": context,
            "arguments": [{"value": wanted}, *objects],
            "awaitPromise": True,
            "returnByValue": True,
        }
        answer = await self._call("Runtime.callFunctionOn", call)
        if "exceptionDetails" in answer:
            what = answer["exceptionDetails"].get("exception", {}).get("description", "unknown")
            raise RenderError("the page could not be measured", actual=what)
        found: Json = json.loads(answer["result"]["value"])
        return found

    def _checked_size(self, found: Json) -> tuple[int, int]:
        """The picture's width and height. Raises PageTooLargeError."""
        config = self._config
        if found["nodes"] > config.max_nodes:
            raise PageTooLargeError("the page has too many nodes", expected=f"at most {config.max_nodes}")
        width_px, height_px = config.viewport_width_px, config.viewport_height_px
        if config.full_page:
            height_px = int(found["height"])
            if config.extent is Extent.CONTENT:
                width_px = int(found["width"])
        for side, size_px, most_px in (
            ("wide", width_px, max(config.max_width_px, config.viewport_width_px)),
            ("high", height_px, config.max_height_px),
        ):
            if size_px > most_px:
                raise PageTooLargeError(
                    f"the page is too {side}", expected=f"at most {most_px} px", actual=f"{size_px} px"
                )
        return width_px, height_px

    async def _picture(self, width_px: int, height_px: int) -> bytes:
        # To the bit what one picture would be, but for layers that are turned (in three dimensions, or with
        # will-change): those are resampled, and some pixels of their edges come out otherwise.
        tops = list(strips(height_px, self._config.strip_height_px, self._config.scale))
        if len(tops) == 1:
            return await self._strip(0, width_px, height_px)
        joiner = PngJoiner()
        for top_px, strip_px in tops:
            joiner.add(await self._strip(top_px, width_px, strip_px))
        return joiner.png()

    async def _strip(self, top_px: int, width_px: int, height_px: int) -> bytes:
        # Beyond the viewport: a window as high as the page would stretch what is sized by the window's height.
        call = {
            "format": "png",
            "optimizeForSpeed": True,
            "captureBeyondViewport": True,
            "clip": {"x": 0, "y": top_px, "width": width_px, "height": height_px, "scale": 1},
        }
        return base64.b64decode((await self._call("Page.captureScreenshot", call))["data"])

    def _on_event(self, method: str, params: Json) -> None:
        if method == "Fetch.requestPaused":
            self._answer_request(params)
        elif method == "Page.frameNavigated" and "parentId" not in params["frame"]:
            has_left = self._at == self._bound_for
            self._at = params["frame"]["url"]
            if has_left:
                self._finish_loading()
        elif method == "Page.loadEventFired" and self._at == self._bound_for:
            # An event of the page before would have come before we were told that this one has taken its place.
            self._finish_loading()
        elif method in ("Network.requestWillBeSent", "Network.loadingFinished", "Network.loadingFailed"):
            self._follow_request(method, params)
        elif method == "Page.javascriptDialogOpening":
            self._connection.send("Page.handleJavaScriptDialog", {"accept": False}, self._session)
        elif method == "Inspector.targetCrashed":
            self.lost = True
            self._connection.drop_session(self._session)

    def _finish_loading(self) -> bool:
        """Whether the page was still loading."""
        if self._loaded is None or self._loaded.done():
            return False
        self._loaded.set_result({})
        return True

    def _answer_request(self, params: Json) -> None:
        request, url, kind = params["requestId"], params["request"]["url"], params["resourceType"]
        # A page's main frame has the id of its target.
        is_page = kind == "Document" and params["frameId"] == self._target
        if is_page and self._pending is not None and url == self._bound_for:
            answer, self._pending = self._pending, None
            self._connection.send("Fetch.fulfillRequest", {"requestId": request, **answer}, self._session)
            return
        if self._door is not None and not is_page:
            task = asyncio.get_running_loop().create_task(self._serve(self._door, request, url, kind))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            return
        self._refuse(request)
        if is_page and self._finish_loading():
            # Its scripts sent it elsewhere, which ended its own loading for good.
            self._at = f"{url} (refused)"

    def _refuse(self, request: str, reason: str = "Aborted") -> None:
        refusal = {"requestId": request, "errorReason": reason}
        self._connection.send("Fetch.failRequest", refusal, self._session)

    async def _serve(self, door: AssetDoor, request: str, url: str, kind: str) -> None:
        """Answers a request of the page from its folder."""
        asset = await door.read(url)
        if asset is None:
            self._refuse(request, "Failed")  # as of a file that is not there: an object then shows what stands in it
            return
        # A renderer keeps what it has loaded, and two pages may have the same address, or one have changed meanwhile.
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": _policy(self._config.scripts, f" {ORIGIN}")}
        headers |= _kind_header(asset, kind)
        if kind in ("Font", "Script"):
            headers["Access-Control-Allow-Origin"] = "*"  # the page has no origin, and these are asked for with one
        answer = {"requestId": request, **_response(asset.content, headers)}
        self._connection.send("Fetch.fulfillRequest", answer, self._session)

    def _follow_request(self, method: str, params: Json) -> None:
        """Keeps track of the requests of a page that may read a folder, and notes those that the browser refuses."""
        if self._door is None:
            return
        request, kind = params["requestId"], params.get("type")
        if method == "Network.requestWillBeSent":
            if kind != "Document":  # the load event waits for frames, and of some no end is told
                self._asked[request] = params["request"]["url"]
                self._quiet.clear()
            return
        url = self._asked.pop(request, "")
        if not self._asked:
            self._quiet.set()
        if kind not in _UNSEEN and ("blockedReason" in params or "corsErrorStatus" in params):
            self._door.refuse(url)


def _response(body: bytes, headers: dict[str, str]) -> Json:
    return {
        "responseCode": 200,
        "responseHeaders": [{"name": name, "value": value} for name, value in headers.items()],
        "body": base64.b64encode(body).decode(),
    }


def _kind_header(asset: Asset, asked_as: str) -> dict[str, str]:
    """The content type of a file. Without one a browser looks at the content, as it does for a frame's file."""
    if asset.kind == "text/html":
        return {"Content-Type": _kind(asset.content, "")}
    if asset.kind == "text/plain":
        return {"Content-Type": "text/plain; charset=utf-8"}
    if not asset.kind and asked_as == "Document":
        return {}
    return {"Content-Type": asset.kind or "application/octet-stream"}


def _kind(html: bytes, encoding: str) -> str:
    """The content type to serve. UTF-8 unless the page itself says otherwise, which the browser then reads itself."""
    if not encoding and _DECLARES_ENCODING.search(html, 0, 1024):
        return "text/html"
    return f"text/html; charset={encoding or 'utf-8'}"
