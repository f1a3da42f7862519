"""The right side of the desk: the score and where it was lost, and the versions."""

from collections.abc import Callable, Sequence
from functools import partial

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from lensmith.workflows.app.elements import button, tag
from lensmith.workflows.app.stage import WHAT
from lensmith.workflows.app.store import CHANGE, EDIT, Version
from lensmith.workflows.html.gallery import FAIR, GOOD

TERMS = (
    ("Blocks", "Lines of text and plain areas that both have, by area", ("block_match", "area_match")),
    ("Text", "The ink of each line lies on the ink of its partner", ("text_recall",)),
    ("Position", "Lines stand where they stood", ("position_recall",)),
    ("Colour", "Of letters, and of what is behind them", ("colour_recall",)),
    ("Pixels", "All that stands out from the background, at three scales", ("pixel",)),
)
"""The five terms that `PictureScore.overall` is the mean of: a name, what it says, and the fields it is the mean of."""
_MADE_BY = {
    "layout": "Measured and rebuilt",
    "model": "Written by the model",
    EDIT: "Your edit",
    CHANGE: "Changed as you asked",
}


def grade(value: float) -> str:
    """A class for a score, as in the reports."""
    return "good" if value >= GOOD else "fair" if value >= FAIR else "bad"


def fill_score(panel: TextElement, version: Version, on_place: Callable[[int], None]) -> None:
    """The five terms with what each has cost, and the worst places; `on_place` is told the number of one to show."""
    panel.clear()
    with panel:
        if version.overall is None:
            tag("p", f"This version could not be rendered: {version.error}", classes="empty")
            return
        with tag("div", classes=f"total {grade(version.overall)}"):
            tag("strong", f"{version.overall:.0%}")
            tag("span", "like the screenshot", classes="dim")
        if not version.is_complete:
            tag("p", "The model was cut off by its limit: the page may lack its end.", classes="note")
        _terms(version)
        if version.places:
            _places(version, on_place)


def _terms(version: Version) -> None:
    with tag("table", classes="terms"):
        tag("caption", "Where it was lost")
        with tag("thead"), tag("tr"):
            for head in ("Term", "Value", "Points lost"):
                tag("th", head, scope="col")
        with tag("tbody"):
            for name, meaning, fields in TERMS:
                values = [version.terms.get(field, 0.0) for field in fields]
                value = sum(values) / len(values)
                lost = 100 * (1 - value) / len(TERMS)
                with tag("tr"):
                    with tag("th", scope="row"):
                        tag("span", name)
                        tag("small", meaning, classes="dim")
                    with tag("td", f"{value:.2f}", classes="value"):
                        tag("span", classes=f"meter {grade(value)}", aria_hidden="true").style(f"--part:{value:.0%}")
                    tag("td", f"{lost:.1f}", classes="lost")


def _places(version: Version, on_place: Callable[[int], None]) -> None:
    tag("h3", "The worst places")
    with tag("ol", classes="places"):
        for number, place in enumerate(version.places, start=1):
            with tag("li"), button("", partial(on_place, number), classes="place"):
                tag("span", str(number), classes="number", aria_hidden="true")
                tag("span", WHAT.get(place.what, place.what))
                size = f"{place.width_px} × {place.height_px} px at {place.left_px}, {place.top_px}"
                tag("span", f"{size} · {place.share:.0%} of all difference", classes="dim")


def fill_versions(
    panel: TextElement, versions: Sequence[Version], *, base: str, shown: int, on_pick: Callable[[int], None]
) -> None:
    """All versions of the project at `base`, the newest first; `on_pick` is told the number of one to show."""
    panel.clear()
    best = max(versions, key=lambda version: version.overall or -1.0, default=None)
    with panel, tag("ol", classes="versions", reversed=True):
        for version in reversed(versions):
            with tag("li"):
                with button("", partial(on_pick, version.number), classes="version") as picked:
                    picked.props["aria-current"] = "true" if version.number == shown else "false"
                    if version.overall is None:
                        tag("span", "no picture", classes="thumb dim")
                    else:
                        source = f"{base}{version.number}/rendering.png"
                        tag("img", classes="thumb", src=source, alt="", loading="lazy")
                    tag("strong", f"Version {version.number}")
                    tag("span", _said(version), classes="dim")
                    if version is best and version.overall is not None and len(versions) > 1:
                        tag("span", "closest", classes="tag")
                if version.note:
                    tag("q", version.note, classes="dim")
    with panel:
        tag("p", "Every page that was ever made here is kept: nothing is overwritten.", classes="dim foot")


def _said(version: Version) -> str:
    score = "did not render" if version.overall is None else f"{version.overall:.0%}"
    made_by = _MADE_BY.get(version.made_by, version.made_by)
    origin = f" · from version {version.parent}" if version.parent is not None else ""
    return f"{score} · {made_by}{origin}"


def announce(text: str, *, is_bad: bool = False) -> None:
    """A message that stays for some seconds."""
    ui.notify(text, color="red-10" if is_bad else "grey-10", position="bottom", timeout=5000)
