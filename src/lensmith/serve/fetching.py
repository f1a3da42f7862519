"""Pictures that a request names by address: fetched only from hosts that the operator named."""

from dataclasses import replace
from urllib.parse import urlsplit

import httpx

from lensmith.core.endpoint import Request
from lensmith.core.errors import ImageError
from lensmith.core.types import Part, Picture
from lensmith.serve.config import ServerLimits


async def with_pictures(request: Request, limits: ServerLimits) -> Request:
    """The request with its pictures' bytes in place of their addresses. Raises ImageError."""
    if not any(_is_address(part) for message in request.messages for part in message.parts):
        return request
    async with httpx.AsyncClient(timeout=limits.picture_timeout_s, follow_redirects=False, trust_env=False) as client:
        messages = [
            replace(message, parts=tuple([await _fetched(part, client, limits) for part in message.parts]))
            for message in request.messages
        ]
    return replace(request, messages=tuple(messages))


def _is_address(part: Part) -> bool:
    return isinstance(part, Picture) and not part.data


async def _fetched(part: Part, client: httpx.AsyncClient, limits: ServerLimits) -> Part:
    if not isinstance(part, Picture) or part.data:
        return part
    _check_host(part.url, limits)
    pieces, size = [], 0
    try:
        async with client.stream("GET", part.url) as response:
            if response.status_code != httpx.codes.OK:
                raise ImageError("the picture cannot be fetched", expected="status 200", actual=response.status_code)
            async for piece in response.aiter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > limits.pictures.max_bytes:
                    raise ImageError(
                        "the picture is too large", expected=f"at most {limits.pictures.max_bytes:,} bytes"
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ImageError("the picture cannot be fetched", actual=type(error).__name__) from error
    return Picture(data=b"".join(pieces))


def _check_host(url: str, limits: ServerLimits) -> None:
    try:
        host = urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        host = ""
    if host not in limits.picture_hosts:
        raise ImageError(
            "pictures are not fetched from this address",
            expected="a data URL"
            + (f", or a host among {', '.join(limits.picture_hosts)}" if limits.picture_hosts else ""),
            actual=host or "no host",
        )
