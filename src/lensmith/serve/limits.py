"""What a server takes on, and from whom."""

from dataclasses import dataclass

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.images import ImageLimits

PICTURES = ImageLimits(max_bytes=16 << 20, max_pixels=1 << 25)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`waiting_requests` may wait beside those that run. `told_values` bounds whole vocabularies in one answer.

    `picture_hosts` are the only hosts (`name` or `name:port`) that pictures are fetched from; none by default.
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
