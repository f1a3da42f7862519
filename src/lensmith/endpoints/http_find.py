"""Which dialect a server speaks, from its list of models, its headers and its version; and whether it is this host."""

import ipaddress
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from lensmith.core.wire import DIALECTS, Dialect

_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama-server",
    "lensmith": "lensmith",
    "me": "llama-cpp-python",
}
"""What servers write as the owner of their models."""


def find_dialect(base_url: str, get: Callable[[str], httpx.Response | None]) -> Dialect:
    """The dialect of a server; one that says nothing of itself is taken as plainly compatible with OpenAI.

    `get` gives what is at a URL, None where nothing is: the request that follows will say why.
    """
    if urlsplit(base_url).hostname == "api.openai.com":
        return DIALECTS["openai"]
    response = get(f"{base_url}/models")
    if response is not None:
        owner = _owner(response)
        if owner in _OWNERS:
            return DIALECTS[_OWNERS[owner]]
        product = str(response.headers.get("server", "")).lower()
        if product.startswith("llama.cpp"):
            return DIALECTS["llama-server"]
        if product.startswith("lensmith"):
            return DIALECTS["lensmith"]
    version = get(f"{base_url.removesuffix('/v1')}/version")
    return DIALECTS["vllm" if version is not None and "version" in _json(version) else "compatible"]


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by address or by name. No name server is asked about other names."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == socket.gethostname()


def _owner(response: httpx.Response) -> str:
    models = _json(response).get("data")
    first = models[0] if isinstance(models, list) and models else None
    return str(first.get("owned_by")) if isinstance(first, dict) else ""


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
