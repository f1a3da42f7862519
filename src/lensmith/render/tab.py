"""One long-lived page of the browser: loads a document, measures it, takes its picture.

The document is our answer to a navigation that we intercept, so it is loaded as from a web server: bytes decoded as a
browser decodes them, a fresh document each time, and a content security policy in the response's header, where the
page cannot touch it. Every other request is refused. Measuring runs in an isolated world: the page's scripts share no
object with it.
"""

import asyncio
import base64
import json
import re
from collections.abc import Sequence
from importlib.resources import files

from lensmith.core.errors import PageTooLargeError, RenderError
from lensmith.core.types import Page
from lensmith.render.config import Capture, Extent, RenderConfig, Scripts
from lensmith.render.devtools import Connection, Json, ProtocolError, SessionLostError
from lensmith.render.measured import nested_nodes, page_of, put_frame
from lensmith.render.strips import PngJoiner, strips

WINDOW_PX = 64
ADDRESS = "https://page.invalid/"
MAX_NOTES = 20
"""The most boxes that scroll which are named, those that hide most."""
_LISTED_NODES = 10
"""Times `max_nodes`: how many nodes the renderer may have in all before its tree is no longer listed."""
_NESTS = re.compile(rb"s\0?h\0?a\0?d\0?o\0?w\0?r\0?o\0?o\0?t|i\0?f\0?r\0?a\0?m\0?e", re.IGNORECASE)
_DECLARES_ENCODING = re.compile(rb"<meta[^>]+charset", re.IGNORECASE)
_MEASURE = files("lensmith.render").joinpath("measure.js").read_text(encoding="utf-8")

# The sandbox takes away dialogs, popups, forms, downloads and the page's origin; and, unless scripts may run, they and
# meta refresh.
_POLICY = "default-src 'none'; img-src data: blob:; font-src data:; style-src 'unsafe-inline' data:; webrtc 'block'; "
_POLICIES = {
    Scripts.OFF: _POLICY + "sandbox",
    Scripts.ON: _POLICY + "script-src 'unsafe-inline' 'unsafe-eval'; sandbox allow-scripts",
}


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

    async def render(self, html: bytes, encoding: str, capture: Capture) -> Page:
        """Raises RenderError, SessionLostError when the renderer dies, ConnectionLostError when the browser does."""
        self.renders += 1
        try:
            frame = await self._load(html, encoding)
            found = await self._measure(frame, html, capture)
            width_px, height_px = self._checked_size(found)
            png = await self._picture(width_px, height_px) if Capture.PICTURE in capture else b""
        except ProtocolError as error:
            raise RenderError("the page changed while it was rendered", actual=error) from error
        self._check_place()
        return page_of(found, width_px, height_px, png, has_texts=Capture.TEXTS in capture)

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
        headers = {"Content-Type": _kind(html, encoding), "Content-Security-Policy": _POLICIES[self._config.scripts]}
        self._pending = {
            "responseCode": 200,
            "responseHeaders": [{"name": name, "value": value} for name, value in headers.items()],
            "body": base64.b64encode(html).decode(),
        }
        answer = await self._go(ADDRESS)
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

    def _check_place(self) -> None:
        if self._at != self._bound_for:
            raise RenderError("the page went elsewhere while it was rendered", actual=self._at)

    async def _measure(self, frame: str, html: bytes, capture: Capture) -> Json:
        wanted = {
            "texts": Capture.TEXTS in capture,
            "elements": Capture.ELEMENTS in capture,
            "chars": Capture.CHARS in capture,
            "maxNodes": self._config.max_nodes,
            "maxHeight": self._config.max_height_px,
            "maxNotes": MAX_NOTES,
            "fullPage": self._config.full_page,
            "content": self._config.full_page and self._config.extent is Extent.CONTENT,
            "expand": self._config.expand_scrolling,
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
        inside = {**wanted, "elements": False, "chars": False, "fullPage": False, "content": False}
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
        world = await self._call("Page.createIsolatedWorld", {"frameId": frame, "worldName": "lensmith"})
        context = world["executionContextId"]
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
        request, url = params["requestId"], params["request"]["url"]
        if self._pending is not None and url == ADDRESS:
            answer, self._pending = self._pending, None
            self._connection.send("Fetch.fulfillRequest", {"requestId": request, **answer}, self._session)
            return
        refusal = {"requestId": request, "errorReason": "Aborted"}
        self._connection.send("Fetch.failRequest", refusal, self._session)
        # A page's main frame has the id of its target.
        if params["resourceType"] == "Document" and params["frameId"] == self._target and self._finish_loading():
            # Its scripts sent it elsewhere, which ended its own loading for good.
            self._at = f"{url} (refused)"


def _kind(html: bytes, encoding: str) -> str:
    """The content type to serve. UTF-8 unless the page itself says otherwise, which the browser then reads itself."""
    if not encoding and _DECLARES_ENCODING.search(html, 0, 1024):
        return "text/html"
    return f"text/html; charset={encoding or 'utf-8'}"
