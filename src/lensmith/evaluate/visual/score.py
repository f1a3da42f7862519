"""How close the rendering of some HTML comes to a target page.

`score_pages` compares two rendered pages: their texts as Design2Code does (arXiv 2403.03163, section 4.2), and their
screenshots (`picture_score` is for a target that is only a picture). `summarise` makes one of many pages' scores.

Where we differ from Design2Code:

- Its Text, Position and Colour average over *matched* pairs only, so that leaving out a hard block costs one term of
  five. Each has a `_recall` twin, in which every block of the target counts once and an unmatched one as zero. Blocks
  weigh the same whatever their area (a label matters as much as a heading), and the weights do not depend on the
  prediction. `block_recall` is by area, as Block is.
- Identical texts are always partners, the nearest first (`matching.pair_identical`), so that a page matches itself.
- CLIP is replaced by pixel similarity, which needs no weights; a mean with it is not Design2Code's score.
- Page size, which normalised positions hide, is reported as an error.
- What is painted besides text has terms of its own (`surfaces`), and SSIM stands beside the pixels; neither is in
  `overall`, so that its figures stay comparable.
- Two pages without any text agree (1); Design2Code gives them 0.
"""

from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from lensmith.core.errors import InputError
from lensmith.core.types import Page
from lensmith.evaluate.stats import MeanEstimate, estimate_mean
from lensmith.evaluate.visual.colour import colour_similarity
from lensmith.evaluate.visual.matching import Matching, blocks_of, match_blocks, pair_identical
from lensmith.evaluate.visual.pixels import page_size_error, pixel_similarity, rgb_array, structural_similarity
from lensmith.evaluate.visual.surfaces import score_surfaces


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """What matched texts say, all in [0, 1], higher is better.

    block_match: area of matched blocks / area of all blocks, both pages. text, position, colour: means over matched
    pairs of difflib's ratio, of 1 - max(|dx|, |dy|) between centres in fractions of the page, and of
    1 - CIEDE2000 / 100. block_recall: the matched share of the target's area. The other `_recall`: the same likenesses,
    summed over the target's blocks and divided by their number.
    """

    block_match: float
    text: float
    position: float
    colour: float
    block_recall: float
    text_recall: float
    position_recall: float
    colour_recall: float


@dataclass(frozen=True, kw_only=True)
class VisualScore(TextScores):
    """The text scores, and those that see the rest of the page.

    pixel: `pixels.pixel_similarity`, and ssim: `pixels.structural_similarity`, at least 0; None where a picture was
    missing. page_size_error: in [0, 1], lower is better. surface_match, surface_recall and surface_colour:
    `surfaces.SurfaceScores`, None where the pages were rendered without their styles.
    """

    means: ClassVar[tuple[str, ...]] = ("overall",)

    pixel: float | None
    page_size_error: float
    ssim: float | None = None
    surface_match: float | None = None
    surface_recall: float | None = None
    surface_colour: float | None = None

    @property
    def overall(self) -> float:
        """The plain mean of five, like Design2Code's total. (Candidates for a picture are ranked by `PictureScore`.)

        block_match (it also punishes invented text), the recall-weighted text, position and colour, and pixel
        similarity; without pictures 1 - page_size_error takes its place.
        """
        seen = 1 - self.page_size_error if self.pixel is None else self.pixel
        return (self.block_match + self.text_recall + self.position_recall + self.colour_recall + seen) / 5

    @classmethod
    def of_failure(cls) -> "VisualScore":
        """The score of a prediction that could not be rendered: nothing matches."""
        surfaces = {"surface_match": 0.0, "surface_recall": 0.0, "surface_colour": 0.0}
        return cls(**asdict(all_equal(0.0)), pixel=0.0, page_size_error=1.0, ssim=0.0, **surfaces)


def score_pages(target: Page, prediction: Page) -> VisualScore:
    """Score a prediction against a target, both rendered with their texts, and if it is to be seen with screenshots at
    scale 1 and with their styles."""
    texts = score_matching(pair_identical(match_blocks(blocks_of(prediction), blocks_of(target))))
    pixel = ssim = None
    if target.png and prediction.png:
        rgb_target, rgb_prediction = rgb_array(target.png), rgb_array(prediction.png)
        pixel = pixel_similarity(rgb_target, rgb_prediction)
        ssim = max(0.0, structural_similarity(rgb_target, rgb_prediction))
    surfaces = score_surfaces(target, prediction) if target.styles and prediction.styles else None
    return VisualScore(
        **asdict(texts),
        pixel=pixel,
        page_size_error=page_size_error(
            (target.width_px, target.height_px), (prediction.width_px, prediction.height_px)
        ),
        ssim=ssim,
        surface_match=None if surfaces is None else surfaces.match,
        surface_recall=None if surfaces is None else surfaces.recall,
        surface_colour=None if surfaces is None else surfaces.colour,
    )


def score_matching(matching: Matching) -> TextScores:
    """The text scores of matched pages. All 1 if neither page has text, all 0 if nothing matches."""
    if not matching.prediction and not matching.target:
        return all_equal(1.0)
    if not matching.pairs:
        return all_equal(0.0)
    predicted = [matching.prediction[pair.prediction] for pair in matching.pairs]
    wanted = [matching.target[pair.target] for pair in matching.pairs]
    centres_predicted, centres_wanted = (np.array([block.centre for block in blocks]) for blocks in (predicted, wanted))
    colours_predicted, colours_wanted = (np.array([block.colour for block in blocks]) for blocks in (predicted, wanted))
    text = np.array([pair.ratio for pair in matching.pairs])
    position = np.maximum(0.0, 1 - np.abs(centres_predicted - centres_wanted).max(axis=1))
    colour = colour_similarity(colours_predicted, colours_wanted)

    matched_wanted = sum(block.area for block in wanted)
    all_wanted = sum(block.area for block in matching.target)
    all_area = all_wanted + sum(block.area for block in matching.prediction)
    parts = np.array([block.parts for block in wanted], dtype=np.float64)
    share = parts / sum(block.parts for block in matching.target)
    return TextScores(
        block_match=_share(matched_wanted + sum(block.area for block in predicted), all_area),
        text=float(text.mean()),
        position=float(position.mean()),
        colour=float(colour.mean()),
        block_recall=_share(matched_wanted, all_wanted),
        text_recall=_weighted(text, share),
        position_recall=_weighted(position, share),
        colour_recall=_weighted(colour, share),
    )


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole)  # the two sums add the same areas in another order


def _weighted(values: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    return min(1.0, float(values @ share))


def all_equal(value: float) -> TextScores:
    """All eight at one value."""
    return TextScores(**{field.name: value for field in fields(TextScores)})


class Score(Protocol):
    """A page's score: a dataclass of metrics, and the names of those of its properties that are means of them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    means: ClassVar[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class VisualSummary:
    """Scores of `n` pages. `metrics` holds every field of the score and then its `means`, such as `overall`.

    A metric that no page has (pixel similarity without pictures) is left out; one that only some have is the mean over
    those, and says so in its own `n`.
    """

    n: int
    metrics: dict[str, MeanEstimate]


def summarise(scores: Sequence[Score], *, confidence: float = 0.95) -> VisualSummary:
    """The summary of scores of one kind. Pages that failed to render belong in it, as `of_failure()`."""
    if not scores:
        raise InputError("no scores to sum up", expected="at least one page", actual=0)
    kinds = {type(score) for score in scores}
    if len(kinds) > 1:
        raise InputError(
            "scores of different kinds cannot be averaged", actual=", ".join(sorted(kind.__name__ for kind in kinds))
        )
    names = [*(field.name for field in fields(scores[0])), *scores[0].means]
    columns = {name: [getattr(score, name) for score in scores] for name in names}
    known = {name: [value for value in column if value is not None] for name, column in columns.items()}
    return VisualSummary(
        n=len(scores),
        metrics={name: estimate_mean(values, confidence=confidence) for name, values in known.items() if values},
    )
