"""The demonstration's first chapter: a page that somebody else made, rebuilt from its screenshot without a model.

The page is one of the pinned set `tune` (`data.webpages.real`), which npm fetches; or there is a screenshot of the
person's own. Where neither is at hand, a generated page takes their place, and the report says why.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.files import write_atomic
from lensmith.core.images import open_picture
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from lensmith.data.webpages.real.pinned import PinnedPackage, pinned_packages, real_page
from lensmith.evaluate.visual.picture_score import PictureScore
from lensmith.render import Capture
from lensmith.workflows.html.convert import Conversion, Converter, at_width
from lensmith.workflows.html.engines import EngineName
from lensmith.workflows.html.evaluate import REAL_WIDTH_PX
from lensmith.workflows.html.gallery import ReportPage, picture_png

REAL_PACKAGE, REAL_PAGE = "startbootstrap-modern-business", "dist/contact.html"
REAL_MAKER = "Start Bootstrap"
FETCH_LIMIT_S = 30.0
"""A demonstration waits no longer for npm. The package has 57 kB."""
SCREENSHOT, PAGE = "screenshot.png", "page.html"
SHOWN_LINES = 60
_DATA_URL = re.compile(r"(data:[\w/+.-]+;base64,)[\w+/=]{40,}")


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the chapter begins with: a page of which a screenshot is taken, or a screenshot (`picture`).

    `html` is "" where only the screenshot is known; `missing` says why it is no page by others, "" where it is one.
    """

    name: str
    html: str = ""
    picture: Image.Image | None = None
    width_px: int = REAL_WIDTH_PX
    missing: str = ""

    @property
    def is_by_others(self) -> bool:
        return self.picture is None and not self.missing


@dataclass(frozen=True, kw_only=True)
class RebuiltPage:
    """The page that was made of the screenshot, and how close it comes; `score` None: it did not render."""

    name: str
    page: Path
    score: PictureScore | None
    seconds: float
    missing: str

    def __str__(self) -> str:
        looks = "its rendering failed" if self.score is None else f"looks {self.score.overall:.0%} like its screenshot"
        told = f"{self.name}, rebuilt as {self.page}: {looks} ({self.seconds:.1f} s)"
        return f"{self.missing}\n{told}" if self.missing else told


def own_screenshot(path: Path) -> Given:
    """The person's own. Raises ImageError where it is no usable picture."""
    return Given(name=path.name, picture=open_picture(path))


def page_by_others(*, instead: str, limit_s: float = FETCH_LIMIT_S) -> Given:
    """The pinned page; the generated page `instead`, where that cannot be had within `limit_s`."""
    try:
        html = real_page(REAL_PACKAGE, REAL_PAGE, limit_s=limit_s)
    except InputError as error:
        reason = f"{error.problem} ({error.actual})" if error.actual else error.problem
        missing = f"no page by others, a generated one in its place: {reason}"
        return Given(name="A generated page", html=instead, width_px=VIEWPORT_WIDTH_PX, missing=missing)
    return Given(name=f"A real page, {REAL_PAGE} of {REAL_PACKAGE}", html=html)


def rebuild_given(given: Given) -> Conversion:
    """A page made of the screenshot alone, by measuring it."""
    with Converter.load(engine=EngineName.LAYOUT) as converter:
        if given.picture is not None:
            return converter.convert(given.picture)
        page = converter.windows.renderer(given.width_px).render(given.html, Capture.PICTURE)
        return converter.convert(open_picture(page.png))


def write_rebuilt(given: Given, conversion: Conversion, folder: Path) -> RebuiltPage:
    """Writes the page below `folder`, and the screenshot where the person does not have it."""
    folder.mkdir(parents=True, exist_ok=True)
    best = conversion.best
    write_atomic(folder / PAGE, best.html.encode())
    if given.picture is None:
        write_atomic(folder / SCREENSHOT, picture_png(conversion.picture))
    return RebuiltPage(
        name=given.name,
        page=folder / PAGE,
        score=best.score,
        seconds=conversion.seconds,
        missing=given.missing,
    )


def rebuilt_section(given: Given, conversion: Conversion) -> ReportPage:
    """The chapter for the demonstration's report, which lies beside the page."""
    best, width_px = conversion.best, conversion.best.width_px
    score = best.score
    size = f"{conversion.picture.width} x {conversion.picture.height} px"
    remark = (
        f"{_told(given)} No model made the page: the text of the screenshot ({size}) was read, sizes, colours and "
        f"surfaces were measured, and rows and columns found, in {conversion.seconds:.1f} s."
    )
    return ReportPage(
        name=given.name,
        target_png=picture_png(at_width(conversion.picture, width_px)),
        answer_png=None if best.page is None else best.page.png,
        answer_html=best.html,
        scores={}
        if score is None
        else {
            "likeness": score.overall,
            "blocks": score.block_match,
            "text": score.text_recall,
            "position": score.position_recall,
            "colour": score.colour_recall,
            "pixels": score.pixel,
        },
        remark=best.error or remark,
        excerpt=first_lines(best.html, SHOWN_LINES),
        file=PAGE,
    )


def first_lines(html: str, count: int) -> str:
    """The first lines of a page from its body on. Pictures within the page are shortened."""
    body = html[max(0, html.find("<body")) :]
    return "\n".join(_DATA_URL.sub(r"\1...", body).splitlines()[:count])


def real_package() -> PinnedPackage:
    """The package that the page is of."""
    return next(package for package in pinned_packages() if package.name == REAL_PACKAGE)


def _told(given: Given) -> str:
    if given.picture is not None:
        return "A screenshot of your own."
    if given.missing:
        return f"{given.missing[:1].upper()}{given.missing[1:]}."
    package = real_package()
    return f"A page made by {REAL_MAKER} ({package.name} {package.version}, {package.license})."
