"""From the size of a picture to the cells that a tower sees of it, without looking at the picture.

A picture keeps its aspect ratio and is padded to whole patches (NaViT-style, as in Sightseer, arXiv 2403.09029). Only
whole numbers are used, so the answer is the same everywhere.
"""

import enum
from dataclasses import dataclass

from lensmith.core.errors import ConfigError, ImageError


class Resize(enum.Enum):
    """What happens to a picture before it is padded to whole patches. Its aspect ratio stays."""

    NEVER = "never"
    """Nothing; a picture over the limits is an error."""
    SHRINK = "shrink"
    """A picture over the limits shrinks until it fits; a smaller one stays as it is."""
    FILL = "fill"
    """Every picture is scaled, up or down, until it touches a limit."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a picture lies on the canvas that the tower sees, and the canvas in cells (patches after merging).

    The picture is scaled to `picture_*_px` and lies at the top left of `canvas_*_px`; the rest is padding.
    """

    picture_width_px: int
    picture_height_px: int
    canvas_width_px: int
    canvas_height_px: int
    columns: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class NativeAspect:
    """A picture keeps its aspect ratio; its right and bottom edges are padded to whole cells.

    A limit on the longest side is the same number for both limits. The limits are whole cells, so the canvas keeps
    them too.
    """

    patch_px: int
    max_width_px: int
    max_height_px: int
    merge: int = 1
    resize: Resize = Resize.SHRINK

    def __post_init__(self) -> None:
        _require_positive(
            patch_px=self.patch_px, max_width_px=self.max_width_px, max_height_px=self.max_height_px, merge=self.merge
        )
        for name in ("max_width_px", "max_height_px"):
            if getattr(self, name) % self.cell_px:
                raise ConfigError(
                    f"{name} is not a whole number of cells",
                    expected=f"a multiple of patch_px * merge = {self.cell_px}",
                    actual=getattr(self, name),
                )

    @property
    def cell_px(self) -> int:
        return self.patch_px * self.merge

    def layout(self, width_px: int, height_px: int) -> Layout:
        """Raises ImageError for a size without area, and under `Resize.NEVER` for one over the limits."""
        if width_px < 1 or height_px < 1:
            raise ImageError("the picture has no pixels", actual=f"{width_px} x {height_px}")
        picture_width_px, picture_height_px = self._resized(width_px, height_px)
        columns = _divide_up(picture_width_px, self.cell_px)
        rows = _divide_up(picture_height_px, self.cell_px)
        return Layout(
            picture_width_px=picture_width_px,
            picture_height_px=picture_height_px,
            canvas_width_px=columns * self.cell_px,
            canvas_height_px=rows * self.cell_px,
            columns=columns,
            rows=rows,
        )

    def _resized(self, width_px: int, height_px: int) -> tuple[int, int]:
        fits = width_px <= self.max_width_px and height_px <= self.max_height_px
        if fits and self.resize is not Resize.FILL:
            return width_px, height_px
        if self.resize is Resize.NEVER:
            raise ImageError(
                "the picture is larger than the model reads",
                expected=f"at most {self.max_width_px} x {self.max_height_px} px",
                actual=f"{width_px} x {height_px} px",
                hint="scale or crop it, or allow resizing",
            )
        if width_px * self.max_height_px >= height_px * self.max_width_px:
            return self.max_width_px, _scaled(height_px, self.max_width_px, width_px)
        return _scaled(width_px, self.max_height_px, height_px), self.max_height_px


def _scaled(length_px: int, limit_px: int, longest_px: int) -> int:
    """`length_px * limit_px / longest_px`, rounded half up, at least one pixel."""
    return max(1, (2 * length_px * limit_px + longest_px) // (2 * longest_px))


def _divide_up(length: int, unit: int) -> int:
    return -(-length // unit)


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} must be positive", expected="at least 1", actual=value)
