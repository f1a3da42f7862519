"""What to render and within which limits."""

import enum
from dataclasses import dataclass

from lensmith.core.errors import ConfigError


class Capture(enum.Flag):
    """What a render returns; combine with `|`."""

    PICTURE = enum.auto()
    """The screenshot, as PNG."""
    TEXTS = enum.auto()
    """One block per visible text node or form field: string, box, colour."""
    ELEMENTS = enum.auto()
    """The border box of every element inside `body`, in document order."""
    CHARS = enum.auto()
    """The box of every character of every text node inside `body`."""
    LINES = enum.auto()
    """The box of every line of every visible text; what they belong to is known with TEXTS."""
    STYLES = enum.auto()
    """How every element that is laid out is placed, and what it paints itself."""


class Scripts(enum.Enum):
    """Whether a page's own scripts run."""

    OFF = "off"
    ON = "on"


class Extent(enum.Enum):
    """How far a full page reaches."""

    SCROLLED = "scrolled"
    """As wide as the window, and as high as it can be scrolled."""
    CONTENT = "content"
    """As wide and as high as root and body are or hold, what they hide too: Playwright's full-page screenshots."""


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """The window a page is laid out in, and the limits that it must keep.

    A page over `max_html_bytes` is refused before it is loaded; one over `max_nodes`, `max_width_px` (which only
    `Extent.CONTENT` can be) or `max_height_px` after layout and before anything is captured. `timeout_s` covers
    loading, measuring and capture of one page.
    """

    viewport_width_px: int = 1280
    viewport_height_px: int = 720
    full_page: bool = True
    extent: Extent = Extent.SCROLLED
    scripts: Scripts = Scripts.OFF
    scale: float = 1.0
    timeout_s: float = 15.0
    max_html_bytes: int = 8_000_000
    max_nodes: int = 50_000
    max_width_px: int = 8_192
    max_height_px: int = 32_768
    expand_scrolling: bool = False
    """Lay boxes that scroll downwards out at their full height, so that all their content is in the picture."""
    strip_height_px: int = 16_384
    """The most rows of the picture (at `scale`) that the browser paints at once: beyond 16,384 it paints none."""
    pages_in_flight: int | None = None
    """None: two for each core, which keeps the cores busy while pages wait for one another's turn."""
    recycle_after: int = 300
    """Renders after which a page is replaced by a new one, so that nothing it leaks can add up."""

    def __post_init__(self) -> None:
        for name in (
            "viewport_width_px", "viewport_height_px", "max_html_bytes", "max_nodes", "max_width_px", "max_height_px",
            "strip_height_px",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive", expected="at least 1", actual=getattr(self, name))
        if self.timeout_s <= 0 or self.scale <= 0:
            raise ConfigError(
                "timeout_s and scale must be positive", actual=f"timeout_s={self.timeout_s}, scale={self.scale}"
            )
        if self.recycle_after < 1 or (self.pages_in_flight is not None and self.pages_in_flight < 1):
            raise ConfigError(
                "recycle_after and pages_in_flight must be at least 1",
                actual=f"recycle_after={self.recycle_after}, pages_in_flight={self.pages_in_flight}",
            )
