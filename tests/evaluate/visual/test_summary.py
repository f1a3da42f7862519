"""Summaries of many scores."""

import json
from dataclasses import asdict, replace

import pytest

from lensmith.core.errors import InputError
from lensmith.core.types import Box, Page, TextBlock
from lensmith.evaluate.visual.picture_score import PictureScore
from lensmith.evaluate.visual.score import VisualScore, score_pages, summarise

PAGE = Page(width_px=100, height_px=100, texts=(TextBlock("hello", Box(0, 0, 50, 10), (0, 0, 0)),))


def test_means_of_all_metrics() -> None:
    good = score_pages(PAGE, PAGE)
    summary = summarise([replace(good, pixel=0.5), VisualScore.of_failure()])
    assert summary.n == 2
    assert summary.metrics["text"].mean == 0.5
    assert summary.metrics["text"].stderr == pytest.approx(0.5)
    assert summary.metrics["page_size_error"].mean == 0.5
    assert summary.metrics["overall"].mean == pytest.approx((1 + 1 + 1 + 1 + 0.5) / 5 / 2)
    written = json.loads(json.dumps(asdict(summary)))
    assert written["n"] == 2
    assert written["metrics"]["text"]["mean"] == 0.5


def test_missing_pixels_are_not_counted() -> None:
    good = score_pages(PAGE, PAGE)
    assert not {"pixel", "ssim", "surface_match"} & summarise([good]).metrics.keys()
    assert summarise([good, replace(good, pixel=0.25)]).metrics["pixel"].n == 1


def test_kinds_are_not_mixed() -> None:
    with pytest.raises(InputError, match="different kinds"):
        summarise([VisualScore.of_failure(), PictureScore.of_failure()])
    with pytest.raises(InputError, match="no scores"):
        summarise([])
