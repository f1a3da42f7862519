"""What a server serves, to whom, and how much of it: one configuration, checked where it is declared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.exposure import Exposure
from lensmith.core.images import ImageLimits
from lensmith.models.inference.endpoint import CACHE_BYTES, SLOTS
from lensmith.models.inference.loading import NO_OPTIONS, FamilyOptions, dtype_named

PICTURES = ImageLimits(max_bytes=16 << 20, max_pixels=1 << 25)
ANY_ORIGIN = "*"
_USUAL_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """`waiting_requests` may wait beside those that run. `told_values` bounds whole vocabularies in one answer.

    `body_bytes` bounds a request's body, and what it expands to where it is compressed. `picture_hosts` are the only
    hosts (`name` or `name:port`) that pictures are fetched from; none by default.
    """

    body_bytes: int = 32 << 20
    waiting_requests: int = 256
    timeout_s: float = 600.0
    told_values: int = 1 << 26
    picture_hosts: tuple[str, ...] = ()
    picture_timeout_s: float = 10.0
    pictures: ImageLimits = PICTURES

    def __post_init__(self) -> None:
        for name in ("body_bytes", "waiting_requests", "timeout_s", "told_values", "picture_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: too small", expected="over 0", actual=getattr(self, name))

    def check(self, request: Request, prompt_tokens: int, vocabulary_size: int) -> None:
        """Raises InputError where the answer would be too large to hold."""
        if Reveal.VOCABULARY not in request.reveal:
            return
        echoed = prompt_tokens if Reveal.PROMPT in request.reveal else 0
        positions = request.n * request.max_tokens + echoed
        if positions * vocabulary_size > self.told_values:
            raise InputError(
                "whole vocabularies at too many positions",
                expected="a smaller max_tokens or n",
                actual=f"{positions} positions",
            )


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask: whoever shows one of the `keys` (without any, everybody), and pages of these web `origins`.

    An origin is what a browser sends: scheme, host, and the port where it is not the scheme's own. `*` is any page.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not origin or origin not in (ANY_ORIGIN, _as_sent(origin)):
                expected = _as_sent(origin) or f"such as https://example.com or http://localhost:3000, or {ANY_ORIGIN}"
                raise ConfigError("allow_origin: no browser sends this", expected=expected, actual=origin)


def _as_sent(origin: str) -> str:
    """The origin of a page at this address, as a browser writes it; empty where it is none."""
    try:
        address = urlsplit(origin)
        port = address.port
    except ValueError:
        return ""
    if address.scheme not in _USUAL_PORTS or not address.hostname or "*" in address.hostname:
        return ""
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    return f"{address.scheme}://{host}" + ("" if port in (None, _USUAL_PORTS[address.scheme]) else f":{port}")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """A model (`model` to `cache_bytes`: see `models.inference.loading.load_answering`) and how it is served."""

    model: str
    name: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    options: FamilyOptions = field(default_factory=lambda: NO_OPTIONS)
    max_length: int | None = None
    cache_bytes: int = CACHE_BYTES
    exposure: Exposure = field(default_factory=Exposure)
    slots: int = SLOTS
    limits: ServerLimits = field(default_factory=ServerLimits)
    access: Access = field(default_factory=Access)
    host: str = "127.0.0.1"
    port: int = 8000

    def __post_init__(self) -> None:
        dtype_named(self.dtype)
