"""Design2Code's Block, Text, Position and Colour, as its authors' code computes them, for any two pages of HTML.

Source: Si et al., "Design2Code" (arXiv 2403.03163, section 4.2) and its scorer (github.com/NoviScl/Design2Code at
7a575e4c, folder Design2Code/metrics). `score_pairs` scores pairs of documents; the steps, with their modules:

1. `cleaning`: the prediction is cleaned, in memory; no file is read or written.
2. `colouring`, `markup`: each page is written twice more, every element with text in a colour of its own.
3. `blocks`: each page and its copies are rendered, and texts are found by their pixels.
4. `matching` (shared with `visual.score`): blocks are merged and matched, pairs under 0.5 are dropped.

The fifth term is CLIP's, for which there are no weights here: whoever has a model passes it in. Without it there is no
Design2Code score, only its terms and their mean, `four_term_mean`. Beside them stand the recall-weighted Text, Position
and Colour, and Block's share of the target's area: the terms themselves average over matched pairs, so that leaving
hard blocks out costs Block alone.

`visual.score` is what to choose by: it sees pixels, and a page always matches itself there. Here it need not: on a page
with equal texts the bonus for neighbours can make it pay to swap them, which costs Position and Colour.

Where this differs from its authors' code: `markup` and `colouring` say what ends with an error there; pages are
rendered without network and scripts, unless the caller's Renderer runs them, so pictures must stand in the page as data
URLs, or beside a page that comes with its folder (`HtmlFile`); a page that cannot be rendered is an error here and a
blank page there; and of more than 1,000 blocks the largest count, for the work grows with the third power.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import ClassVar, NamedTuple

from lensmith.core.errors import RenderError
from lensmith.core.types import Page
from lensmith.evaluate.visual.design2code.blocks import find_blocks
from lensmith.evaluate.visual.design2code.cleaning import clean_prediction
from lensmith.evaluate.visual.design2code.colouring import Copies, coloured_copies
from lensmith.evaluate.visual.matching import Block, largest_blocks, match_blocks, merge_same_boxes
from lensmith.evaluate.visual.pixels import rgb_array
from lensmith.evaluate.visual.score import TextScores, all_equal, score_matching
from lensmith.render import Capture, Extent, HtmlFile, RenderConfig, Renderer

WINDOW = RenderConfig(viewport_width_px=1280, viewport_height_px=720, extent=Extent.CONTENT)
"""How Design2Code renders pages: Playwright's window and full-page screenshots."""


Document = str | HtmlFile
"""A page's HTML, alone or with the folder that it may read. Bytes are read as UTF-8, as Design2Code's code does."""


@dataclass(frozen=True, kw_only=True)
class TextPage:
    """A page as Design2Code sees it: its screenshot (PNG), and its texts with boxes in fractions of the page."""

    png: bytes
    blocks: tuple[Block, ...]


ClipSimilarity = Callable[[TextPage, TextPage], float]
"""CLIP's cosine similarity of a prediction and a target, without their texts.

Design2Code paints over the boxes of all blocks (cv2's INPAINT_TELEA, radius 3), scales the picture to a square of its
shorter side (Lanczos), and takes the cosine of two ViT-B/32 embeddings. The prediction's blocks are given merged.
"""


@dataclass(frozen=True, kw_only=True)
class Design2CodeScore(TextScores):
    """Block, Text, Position and Colour as Design2Code has them, their recall-weighted kin, and CLIP where there is one.

    All in [0, 1], higher is better. All but `clip` are 0 where a page has no text, or no pair of texts is alike enough.
    """

    means: ClassVar[tuple[str, ...]] = ("four_term_mean", "design2code")

    clip: float | None = None

    @property
    def four_term_mean(self) -> float:
        """The plain mean of Block, Text, Position and Colour. Not Design2Code's score, which has five terms."""
        return (self.block_match + self.text + self.position + self.colour) / 4

    @property
    def design2code(self) -> float | None:
        """Design2Code's score, the plain mean of all five terms; None without CLIP."""
        return None if self.clip is None else (4 * self.four_term_mean + self.clip) / 5

    @classmethod
    def of_failure(cls, *, clip: float | None = None) -> "Design2CodeScore":
        """The score of a prediction that could not be rendered. `clip`: 0 where the others have one."""
        return cls(**asdict(all_equal(0.0)), clip=clip)


def score_pairs(
    pairs: Iterable[tuple[Document, Document]], renderer: Renderer, *, clip: ClipSimilarity | None = None
) -> Iterator[Design2CodeScore | RenderError]:
    """The scores of (target, prediction), both HTML, in order; the error in the place of a pair that does not render.

    Streams, with several pages in flight. `renderer` is to have the window `WINDOW`. Raises BrowserNotFoundError.
    """
    pages = text_pages(
        (document for target, prediction in pairs for document in (target, cleaned(prediction))), renderer
    )
    for target_page in pages:
        predicted_page = next(pages)
        if isinstance(target_page, RenderError):
            yield target_page
        elif isinstance(predicted_page, RenderError):
            yield predicted_page
        else:
            yield compare(target_page, predicted_page, clip=clip)


def cleaned(prediction: Document) -> Document:
    """What is scored in place of a prediction (see `cleaning`)."""
    return _with_text(prediction, clean_prediction(_text_of(prediction)))


def text_pages(documents: Iterable[Document], renderer: Renderer) -> Iterator[TextPage | RenderError]:
    """The pages in order, or what kept one from being rendered. Predictions are to be cleaned before.

    For a target that many predictions are compared with, or the other way round.
    """
    waiting: deque[_Plan] = deque()

    def to_render() -> Iterator[Document]:
        for document in documents:
            html = _text_of(document)
            plan = _Plan(html, coloured_copies(html))
            waiting.append(plan)
            yield from (_with_text(document, text) for text in plan.texts)

    pictures = renderer.render_many(to_render(), Capture.PICTURE)
    for page in pictures:
        plan = waiting.popleft()
        yield _text_page(plan, [page, *islice(pictures, len(plan.texts) - 1)])


def compare(target: TextPage, prediction: TextPage, *, clip: ClipSimilarity | None = None) -> Design2CodeScore:
    """The score of a prediction, both pages from `text_pages`."""
    matching = match_blocks(prediction.blocks, target.blocks)
    # Two pages without text are no match there.
    terms = score_matching(matching) if matching.pairs else all_equal(0.0)
    seen = None if clip is None else clip(replace(prediction, blocks=matching.prediction), target)
    return Design2CodeScore(**asdict(terms), clip=seen)


class _Plan(NamedTuple):
    html: str
    copies: tuple[Copies, ...]

    @property
    def texts(self) -> list[str]:
        return [self.html, *(copy for pair in self.copies for copy in (pair.first, pair.second))]


def _text_of(document: Document) -> str:
    html = document.html if isinstance(document, HtmlFile) else document
    return html if isinstance(html, str) else html.decode("utf-8", "replace")


def _with_text(document: Document, html: str) -> Document:
    """Another text in the same folder."""
    return HtmlFile(html=html, assets=document.assets) if isinstance(document, HtmlFile) else html


def _text_page(plan: _Plan, rendered: list[Page | RenderError]) -> TextPage | RenderError:
    pngs = []
    for page in rendered:
        if isinstance(page, RenderError):
            return page
        pngs.append(page.png)
    picture = rgb_array(pngs[0])
    found: list[tuple[int, Block]] = []
    for copies, first, second in zip(plan.copies, pngs[1::2], pngs[2::2], strict=True):
        found += find_blocks(picture, rgb_array(first), rgb_array(second), copies.texts)
    blocks = [block for _, block in sorted(found, key=lambda entry: entry[0])]
    return TextPage(png=pngs[0], blocks=largest_blocks(merge_same_boxes(blocks)))
