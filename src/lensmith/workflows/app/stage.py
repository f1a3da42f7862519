"""The left side of the desk: the screenshot and the page, in four ways to look at them.

A page that runs in the browser is shown in a frame without any right (`sandbox=""`, and the policy it is sent with);
everything else here is a picture that our own renderer took.
"""

import enum
from pathlib import Path

from nicegui.elements.mixins.text_element import TextElement
from PIL import Image

from lensmith.workflows.app.elements import RadioGroup, change, tag
from lensmith.workflows.app.store import Project, Version

WHAT = {"missing": "Missing from the page", "extra": "Not on the screenshot", "different": "Looks different"}
"""What `Spot.what` is called."""


class View(enum.StrEnum):
    """A way to look at a version."""

    SLIDER = "slider"
    SIDE = "side"
    DIFFERENCE = "difference"
    LIVE = "live"


class Device(enum.StrEnum):
    """A frame that a page is shown in."""

    ORIGINAL = "original"
    PHONE = "phone"
    TABLET = "tablet"
    DESKTOP = "desktop"


VIEWS = {View.SLIDER: "Slider", View.SIDE: "Side by side", View.DIFFERENCE: "Difference", View.LIVE: "Live page"}
DEVICES = {Device.ORIGINAL: "As shot", Device.PHONE: "Phone", Device.TABLET: "Tablet", Device.DESKTOP: "Desktop"}
SIZES = {Device.PHONE: (390, 844), Device.TABLET: (768, 1024), Device.DESKTOP: (1280, 800)}
"""Width and height of the frames in CSS pixels."""


class Stage:
    """Built once a tab. It shows a version, or the page as far as it has come."""

    def __init__(self, *, path: str, project: Project) -> None:
        self._path, self._project = path, project
        self._shown: Version | None = None
        self._live = ""
        self._width_px, height_px = _size_of(project.screenshot_path)
        self._screenshot = f"{path}projects/{project.id}/screenshot.png"
        self._screenshot_height_px = height_px
        with tag("section", classes="stage", aria_label="Screenshot and page"):
            with tag("div", classes="tools"):
                self._view = RadioGroup("View", list(VIEWS.items()), value=View.SLIDER, on_change=self.look)
                self._device = RadioGroup(
                    "Width of the page", list(DEVICES.items()), value=Device.ORIGINAL, on_change=self._frame
                )
            with tag("div", classes="canvas", tabindex=0, role="region", aria_label="Pictures") as self._canvas:
                self._panes = {
                    View.SLIDER: self._slider(),
                    View.SIDE: self._side(),
                    View.DIFFERENCE: self._difference(),
                    View.LIVE: self._frames(),
                }
                self._failed = tag("p", classes="empty")
        self._offer(View.SIDE)
        self.look(View.SIDE)

    def show(self, version: Version) -> None:
        """A version that is kept."""
        self._shown = version
        base = f"{self._path}projects/{self._project.id}/{version.number}/"
        alternative = f"Version {version.number}, rendered"
        for element in (self._over, self._beside):
            change(element, src=f"{base}rendering.png", alt=alternative)
        change(self._differing, src=f"{base}difference.png", alt=f"What differs in version {version.number}")
        self._mark(version)
        self._width_px = version.width_px
        self.show_live(f"{base}page")
        self._failed.text = (
            "" if version.overall is not None else f"This version could not be rendered: {version.error}"
        )
        self._offer(*([View.LIVE] if version.overall is None else VIEWS))
        self.look(self._view.value)

    def show_live(self, address: str) -> None:
        """What the frame shows, if it is not that already."""
        if address != self._live:
            self._live = address
            change(self._page, src=address)
            self._case.classes(remove="blank")

    def show_making(self, address: str) -> None:
        """The page as far as it has come, beside the screenshot until there is a version."""
        if self._shown is not None:
            self.look(View.LIVE)
        self.show_live(address)

    def look(self, view: str) -> None:
        """Changes the way to look."""
        has_picture = self._shown is not None and self._shown.overall is not None
        if self._shown is not None and not has_picture:
            view = View.LIVE
        self._view.set(view)
        for name, pane in self._panes.items():
            pane.set_visibility(name == view or (name is View.LIVE and self._shown is None))
        self._canvas.classes(replace="canvas making" if self._shown is None else "canvas")
        self._so_far.set_visibility(self._shown is None)
        self._device.element.set_visibility(view == View.LIVE)
        self._beside_figure.set_visibility(has_picture)
        self._failed.set_visibility(self._shown is not None and not has_picture)
        self._frame(self._device.value)

    def _offer(self, *views: View) -> None:
        for view in VIEWS:
            self._view.offer(view, view in views)

    def _slider(self) -> TextElement:
        with tag("div", classes="pane") as pane:
            with tag("div", classes="ends", aria_hidden="true"):
                tag("span", "Screenshot")
                tag("span", "Page")
            with tag("div", classes="wipe"):
                self._over = tag("img", classes="rendering", alt="")
                tag("img", classes="target", src=self._screenshot, alt="The screenshot")
                tag(
                    "input",
                    type="range",
                    min=0,
                    max=100,
                    value=50,
                    aria_label="Divider: so many percent of the width show the screenshot, the rest the page",
                )
                tag("div", classes="line", aria_hidden="true")
        return pane

    def _side(self) -> TextElement:
        with tag("div", classes="pane pair") as pane:
            with tag("figure"):
                tag("figcaption", "Screenshot")
                tag("img", src=self._screenshot, alt="The screenshot")
            with tag("figure") as self._beside_figure:
                tag("figcaption", "Page")
                self._beside = tag("img", alt="")
        return pane

    def _difference(self) -> TextElement:
        with tag("div", classes="pane") as pane:
            tag("p", "Pale: the screenshot. Red: what differs, the stronger the more.", classes="dim caption")
            with tag("div", classes="marked"):
                self._differing = tag("img", alt="")
                self._marks = tag("div", aria_hidden="true")
        return pane

    def _frames(self) -> TextElement:
        with tag("div", classes="pane") as pane:
            self._so_far = tag("p", "Page, as far as it has come", classes="caption")
            with tag("div", classes="device blank", data_frame="") as self._case:
                self._page = tag("iframe", sandbox="", title="The page, live", referrerpolicy="no-referrer")
        return pane

    def _frame(self, device: str) -> None:
        width, height = SIZES.get(Device(device), (self._width_px, min(900, self._screenshot_height_px)))
        change(self._case, data_width=width, data_height=height, data_device=device)

    def _mark(self, version: Version) -> None:
        """Draws the worst places over the difference, in percent of its size."""
        self._marks.clear()
        path = self._project.path(version.number, "difference.png")
        if not version.places or not path.is_file():
            return
        width, height = _size_of(path)
        with self._marks:
            for number, place in enumerate(version.places, start=1):
                with tag("div", classes="mark", id=f"place-{number}") as mark:
                    tag("span", str(number))
                mark.style(
                    f"left:{place.left_px / width:.3%};top:{place.top_px / height:.3%};"
                    f"width:{place.width_px / width:.3%};height:{place.height_px / height:.3%}"
                )


def _size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size
