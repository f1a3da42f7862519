"""One long-lived page of the browser: loads a document, measures it, takes its picture.

The document is served by us to a navigation that we intercept, so it is loaded as from a web server: bytes decoded
as a browser does, a fresh document each time, and a content security policy in the response's header, where the page
cannot touch it. Measuring runs in an isolated world: the page's scripts share no object with it.
"""

import asyncio
import base64
import json
from dataclasses import dataclass
from importlib.resources import files

from lensmith.core.errors import PageTooLargeError, RenderError
from lensmith.core.types import Box, CharBox, ElementBox, Page, Rgb, TextBlock
from lensmith.render.config import Capture, RenderConfig, Scripts
from lensmith.render.devtools import Connection, Json, ProtocolError, SessionLostError

ADDRESS = "https://page.invalid/"
_MEASURE = files("lensmith.render").joinpath("measure.js").read_text(encoding="utf-8")
_POLICY = "default-src 'none'; img-src data: blob:; font-src data:; style-src 'unsafe-inline' data:; webrtc 'block'; "
_POLICIES = {
    Scripts.OFF: _POLICY + "sandbox",
    Scripts.ON: _POLICY + "script-src 'unsafe-inline' 'unsafe-eval'; sandbox allow-scripts",
}


@dataclass(frozen=True, kw_only=True)
class _Measured:
    width_px: int
    height_px: int
    texts: tuple[TextBlock, ...] = ()
    elements: tuple[ElementBox, ...] = ()
    chars: tuple[CharBox, ...] = ()


class Tab:
    """A page in a browser context of its own, so that it shares its renderer process with no other."""

    def __init__(self, connection: Connection, config: RenderConfig, target: str, session: str, context: str) -> None:
        self._connection = connection
        self._config = config
        self._target = target
        self._session = session
        self._context = context
        self._body: bytes | None = None
        self._loaded = asyncio.Event()
        self.renders = 0
        self.lost = False

    @classmethod
    async def open(cls, connection: Connection, config: RenderConfig) -> "Tab":
        context = (await connection.call("Target.createBrowserContext"))["browserContextId"]
        where = {"url": "about:blank", "browserContextId": context}
        target = (await connection.call("Target.createTarget", where))["targetId"]
        attach = {"targetId": target, "flatten": True}
        session = (await connection.call("Target.attachToTarget", attach))["sessionId"]
        tab = cls(connection, config, target, session, context)
        connection.listen(session, tab._on_event)
        await tab._prepare()
        return tab

    async def _prepare(self) -> None:
        config = self._config
        for method, params in (
            ("Page.enable", {}),
            ("Inspector.enable", {}),
            ("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}),
            ("Emulation.setScriptExecutionDisabled", {"value": config.scripts is Scripts.OFF}),
            ("Emulation.setTimezoneOverride", {"timezoneId": "UTC"}),
            ("Emulation.setLocaleOverride", {"locale": "en-US"}),
            (
                "Emulation.setDeviceMetricsOverride",
                {
                    "width": config.viewport_width_px,
                    "height": config.viewport_height_px,
                    "deviceScaleFactor": config.scale,
                    "mobile": False,
                },
            ),
        ):
            await self._call(method, params)

    async def close(self) -> None:
        """Closes the page and ends its renderer, hung or not."""
        self.lost = True
        self._connection.drop_session(self._session)
        await self._connection.call("Target.closeTarget", {"targetId": self._target})
        await self._connection.call("Target.disposeBrowserContext", {"browserContextId": self._context})

    async def render(self, html: bytes, capture: Capture) -> Page:
        """Raises RenderError, or SessionLostError when the page crashes."""
        self.renders += 1
        try:
            await self._load(html)
            measured = await self._measure(capture)
            png = await self._picture(measured) if Capture.PICTURE in capture else b""
        except ProtocolError as error:
            raise RenderError("the page changed while it was rendered", actual=error) from error
        return Page(
            width_px=measured.width_px,
            height_px=measured.height_px,
            png=png,
            texts=measured.texts,
            elements=measured.elements,
            chars=measured.chars,
        )

    async def _call(self, method: str, params: Json) -> Json:
        if self.lost:
            raise SessionLostError("the page is gone")
        return await self._connection.call(method, params, self._session)

    async def _load(self, html: bytes) -> None:
        self._body = html
        self._loaded.clear()
        answer = await self._call("Page.navigate", {"url": ADDRESS})
        if answer.get("errorText"):
            raise RenderError("the page could not be loaded", actual=answer["errorText"])
        await self._loaded.wait()

    async def _measure(self, capture: Capture) -> _Measured:
        world = await self._call("Page.createIsolatedWorld", {"frameId": self._target, "worldName": "lensmith"})
        wanted = {
            "texts": Capture.TEXTS in capture,
            "elements": Capture.ELEMENTS in capture,
            "chars": Capture.CHARS in capture,
            "maxNodes": self._config.max_nodes,
            "maxHeight": self._config.max_height_px,
            "fullPage": self._config.full_page,
        }
        answer = await self._call(
            "Runtime.evaluate",
            {
                "expression": f"({_MEASURE})({json.dumps(wanted)})",
                "contextId": world["executionContextId"],
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        if "exceptionDetails" in answer:
            raise RenderError("the page could not be measured", actual=answer["exceptionDetails"])
        return self._read(json.loads(answer["result"]["value"]))

    def _read(self, found: Json) -> _Measured:
        config = self._config
        if found["nodes"] > config.max_nodes:
            raise PageTooLargeError(
                "the page has too many nodes", expected=f"at most {config.max_nodes}", actual="more"
            )
        height_px = found["height"] if config.full_page else config.viewport_height_px
        if height_px > config.max_height_px:
            raise PageTooLargeError(
                "the page is too high", expected=f"at most {config.max_height_px} px", actual=f"{height_px} px"
            )
        return _Measured(
            width_px=config.viewport_width_px,
            height_px=height_px,
            texts=tuple(
                TextBlock(text, box, colour)
                for text, box, colour in zip(
                    found["texts"], _boxes(found["textBoxes"]), _colours(found["textColours"]), strict=True
                )
            ),
            elements=tuple(
                ElementBox(tag, box) for tag, box in zip(found["tags"], _boxes(found["tagBoxes"]), strict=True)
            ),
            chars=tuple(
                CharBox(char, box) for char, box in zip(found["chars"], _boxes(found["charBoxes"]), strict=True)
            ),
        )

    async def _picture(self, measured: _Measured) -> bytes:
        answer = await self._call(
            "Page.captureScreenshot",
            {
                "format": "png",
                "optimizeForSpeed": True,
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": measured.width_px, "height": measured.height_px, "scale": 1},
            },
        )
        return base64.b64decode(answer["data"])

    def _on_event(self, method: str, params: Json) -> None:
        if method == "Fetch.requestPaused":
            self._answer_request(params["requestId"], params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Page.javascriptDialogOpening":
            self._connection.send("Page.handleJavaScriptDialog", {"accept": False}, self._session)
        elif method == "Inspector.targetCrashed":
            self.lost = True
            self._connection.drop_session(self._session)

    def _answer_request(self, request: str, url: str) -> None:
        body, self._body = self._body, None
        if body is None or url != ADDRESS:
            refusal = {"requestId": request, "errorReason": "Aborted"}
            self._connection.send("Fetch.failRequest", refusal, self._session)
            return
        headers = {"Content-Type": "text/html", "Content-Security-Policy": _POLICIES[self._config.scripts]}
        answer = {
            "requestId": request,
            "responseCode": 200,
            "responseHeaders": [{"name": name, "value": value} for name, value in headers.items()],
            "body": base64.b64encode(body).decode(),
        }
        self._connection.send("Fetch.fulfillRequest", answer, self._session)


def _boxes(flat: list[int]) -> list[Box]:
    """Boxes from left, top, width, height in 64ths of a pixel, one after the other."""
    unit = 1 / 64
    return [
        Box(left * unit, top * unit, width * unit, height * unit)
        for left, top, width, height in zip(flat[0::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
    ]


def _colours(flat: list[int]) -> list[Rgb]:
    return list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
