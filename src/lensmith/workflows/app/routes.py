"""What the app serves beside its own pages: screenshots in, pictures and made pages out.

A made page is sent as a stranger's (`PAGE_HEADERS`), and without what it would load, run or send anyhow: a policy
keeps a page from loading, but not from opening a connection ahead of time (`<link rel=preconnect>`).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from lensmith.core.errors import LensmithError
from lensmith.core.images import DEFAULT_LIMITS, open_picture
from lensmith.data.webpages.markup.repair import repair
from lensmith.workflows.app.door import PAGE_HEADERS
from lensmith.workflows.app.pictures import zipped
from lensmith.workflows.app.store import Store
from lensmith.workflows.app.studio import Studio, said

PICTURES = ("rendering.png", "difference.png")
_OWN_FILES = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_NOT_A_NAME = re.compile(r"[^\w.-]+")


class Drafts:
    """Pages that are being edited, one for each tab; never on disk."""

    def __init__(self) -> None:
        self._htmls: dict[str, str] = {}

    def put(self, tab: str, html: str) -> None:
        self._htmls[tab] = html

    def html(self, tab: str) -> str:
        """Empty where the tab is gone."""
        return self._htmls.get(tab, "")

    def forget(self, tab: str) -> None:
        self._htmls.pop(tab, None)


def routes(path: str, store: Store, studio: Studio, drafts: Drafts) -> list[Route]:
    """All of them, below `path` (from slash to slash)."""

    async def take(request: Request) -> Response:
        data = await _body(request)
        if data is None:
            limit_mib = DEFAULT_LIMITS.max_bytes >> 20
            return JSONResponse({"error": f"This file is larger than {limit_mib} MiB."}, 413)
        picture = await asyncio.to_thread(open_picture, data)
        project = await asyncio.to_thread(store.create, unquote(request.headers.get("x-file-name", "")), picture)
        studio.convert(project)
        return JSONResponse({"project": project.id}, 201)

    async def screenshot(request: Request) -> Response:
        return FileResponse(store.project(request.path_params["project"]).screenshot_path, headers=_FOREVER)

    async def picture(request: Request) -> Response:
        name = request.path_params["file"]
        file = store.project(request.path_params["project"]).path(request.path_params["number"], name)
        known = name in PICTURES and file.is_file()
        return FileResponse(file, headers=_FOREVER) if known else Response(status_code=404)

    async def page(request: Request) -> Response:
        html = store.project(request.path_params["project"]).html(request.path_params["number"])
        return await _shown(html)

    async def draft(request: Request) -> Response:
        return await _shown(drafts.html(request.path_params["tab"]))

    async def work(request: Request) -> Response:
        found = studio.work_of(request.path_params["project"])
        return await _shown(found.draft if found else "")

    async def download(request: Request) -> Response:
        project = store.project(request.path_params["project"])
        html, kind = project.html(request.path_params["number"]), request.path_params["kind"]
        data, media = (
            (zipped(html), "application/zip") if kind == "zip" else (html.encode(), "text/html; charset=utf-8")
        )
        name = f"{_NOT_A_NAME.sub('-', project.name.rsplit('.', 1)[0]).strip('-.') or 'page'}.{kind}"
        disposition = f"attachment; filename*=UTF-8''{quote(name)}"
        return Response(data, media_type=media, headers={**PAGE_HEADERS, "Content-Disposition": disposition})

    async def own(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _OWN_FILES:
            return Response(status_code=404)
        data = files("lensmith.workflows.app").joinpath(name).read_bytes()
        return Response(data, media_type=_OWN_FILES[name], headers={"Cache-Control": "no-cache"})

    versions = f"{path}projects/{{project}}/{{number:int}}"
    return [
        Route(f"{path}screenshots", _told(take), methods=["POST"]),
        Route(f"{path}projects/{{project}}/screenshot.png", _told(screenshot)),
        Route(f"{path}projects/{{project}}/work", _told(work)),
        Route(f"{versions}/page", _told(page)),
        Route(f"{versions}/download.{{kind:str}}", _told(download)),
        Route(f"{versions}/{{file}}", _told(picture)),
        Route(f"{path}drafts/{{tab}}", _told(draft)),
        Route(f"{path}own/{{name}}", own),
    ]


def _told(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors of a person's making as an answer that says what is wrong."""

    async def telling(request: Request) -> Response:
        try:
            return await answer(request)
        except LensmithError as error:
            return JSONResponse({"error": said(error)}, 404 if request.method == "GET" else 422)
        except OSError as error:
            return JSONResponse({"error": f"The screenshot could not be kept: {error.strerror or error}"}, 507)

    return telling


async def _shown(html: str) -> Response:
    """A made page, for the frame that shows it."""
    repaired = await asyncio.to_thread(repair, html)
    return HTMLResponse(repaired.html, headers=dict(PAGE_HEADERS))


async def _body(request: Request) -> bytes | None:
    """What was sent; None where it is more than the largest picture that is read."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > DEFAULT_LIMITS.max_bytes:
            return None
    return bytes(data)
