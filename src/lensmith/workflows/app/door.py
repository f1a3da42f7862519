"""The door of the app: who may come in, and what its pages may do.

Any web page that a person visits can send requests to this machine, and a name that first leads elsewhere can be made
to lead here (DNS rebinding). So a request is let in only

- below a random path, which is told to nobody but the person who started the app;
- if it names this machine as its host, at our port;
- if it says that it comes from our own page, where a browser says where it comes from (Origin, Sec-Fetch-Site).

Every answer carries a content policy. The app's own pages load from here alone. A page that was made of a screenshot
is a stranger's: it is shown in a frame without any right, and its own policy takes scripts, forms, frames and all
addresses but `data:` from it wherever it is opened (`PAGE_HEADERS`).
"""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""The names of this machine that a browser may have used."""
PAGE_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        ),
        "Cache-Control": "no-store",
    }
)
"""What is sent with a page that was made of a screenshot."""
_FOR_ALL = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-DNS-Prefetch-Control": "off",
}


def app_policy(host: str) -> str:
    """The content policy of the app's own pages, at `host` (with its port)."""
    # NiceGUI compiles Vue templates in the browser and starts from a script within its page; both come from here.
    return (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws://{host}; frame-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    )


class Door:
    """An ASGI application before another."""

    def __init__(self, app: ASGIApp, *, port: int, path: str) -> None:
        """`path`: the random one, from slash to slash."""
        self.app = app
        self._path = path
        self._hosts = tuple(f"{name}:{port}" for name in HOSTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        if problem and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": problem})
        elif problem:
            await PlainTextResponse(problem + "\n", 403, _FOR_ALL)(scope, receive, send)
        else:
            await self.app(scope, receive, _with_headers(send, app_policy(headers["host"])))

    def _problem(self, scope: Scope, headers: Headers) -> str:
        """Why a request is not let in; empty where it is."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return "This app answers to its own machine alone."
        if not f"{scope['path']}/".startswith(self._path):
            return "Open the address that `lensmith app` printed in the terminal: it holds a key."
        origins = headers.getlist("origin")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return "This request comes from another page."
        is_visit = headers.get("sec-fetch-mode", "navigate") == "navigate"
        if not is_visit and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "This request comes from another page."
        if scope["type"] == "websocket" and not origins:
            return "A browser says where it comes from."
        return ""


def _with_headers(send: Send, policy: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {**_FOR_ALL, "Content-Security-Policy": policy}.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
