"""Drawn shapes: captions say what is drawn, and pictures show what captions say."""

import io
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import ConfigError
from lensmith.data.documents import BadRecordError, PictureRef
from lensmith.data.sources import CaptionTextsConfig, ShapesConfig
from lensmith.data.sources.base import Portion, problems
from lensmith.data.sources.shapes import COLOURS, SHAPES


def pixels(source, index):
    document = source.document(index)
    picture = Image.open(io.BytesIO(source.picture(document.pieces[0])))
    return document.pieces[1], np.asarray(picture.convert("RGB"), dtype=np.int64)


def middle_of(colour, pixels_HW3):
    """The mean row and column of the pixels of a colour."""
    rows, columns = np.nonzero((pixels_HW3 == COLOURS[colour]).all(axis=2))
    assert len(rows) > 20
    return rows.mean(), columns.mean()


def test_a_caption_names_the_colours_that_are_there_and_how_they_lie():
    source = ShapesConfig(count=200).open()
    ways = Counter()
    for index in range(200):
        caption, drawn_HW3 = pixels(source, index)
        named = [word for word in caption.split() if word in COLOURS]
        there = {name for name, colour in COLOURS.items() if (drawn_HW3 == colour).all(axis=2).sum() > 20}
        assert there == set(named), caption
        assert sum(word in SHAPES for word in caption.split()) == len(named)
        if len(there) == 2:
            (row, column), (other_row, other_column) = (middle_of(name, drawn_HW3) for name in named)
            ways["above" in caption] += 1
            apart_rows, apart_columns = other_row - row, other_column - column
            assert (
                (apart_rows > 12 > abs(apart_columns)) if "above" in caption else apart_columns > 12 > abs(apart_rows)
            )
    assert min(ways.values()) > 40


def test_each_shape_looks_different():
    """How much of its box a shape fills: a half for triangle, diamond and cross, another share for each other one."""
    shares = {shape: [] for shape in SHAPES}
    source = ShapesConfig(count=600, side_px=96).open()
    for index in range(600):
        caption, drawn_HW3 = pixels(source, index)
        if "of" in caption or "above" in caption:
            continue
        filled = (drawn_HW3 != 255).any(axis=2)
        rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
        box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        shares[caption.split()[-1]].append(filled.sum() / box)
    means = {shape: np.mean(found) for shape, found in shares.items()}
    expected = {"circle": math.pi / 4, "square": 1.0, "triangle": 0.5, "diamond": 0.5, "cross": 0.51}
    for shape, share in expected.items():
        assert means[shape] == pytest.approx(share, abs=0.06), shape
    assert means["star"] < 0.45


def test_a_number_gives_the_same_drawing_and_another_seed_another():
    one, again, other = (ShapesConfig(count=20, seed=seed).open() for seed in (0, 0, 1))
    assert [pixels(one, index)[0] for index in range(20)] == [pixels(again, index)[0] for index in range(20)]
    assert all((pixels(one, index)[1] == pixels(again, index)[1]).all() for index in range(20))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert [pixels(one, index)[0] for index in range(20)] != [pixels(other, index)[0] for index in range(20)]
    longer = ShapesConfig(count=500).open()
    assert longer.document(7) == one.document(7)
    assert problems(longer).counts == {}


def test_what_is_held_out_is_in_no_other_portion():
    whole, train, held_out = (
        {source.document(index).key for index in range(len(source))}
        for source in (ShapesConfig(count=400, portion=portion).open() for portion in Portion)
    )
    assert train | held_out == whole
    assert not train & held_out
    assert 20 < len(held_out) < 60


def test_what_a_caption_is_worth_is_its_entropy():
    """Counted: frequencies of kinds, colours and shapes in 20,000 captions, and the entropy of even draws of them."""
    source = ShapesConfig(count=20_000).open()
    captions = [source.document(index).pieces[1] for index in range(len(source))]
    pairs = sum("above" in caption or "left of" in caption for caption in captions)
    shares = np.array([pairs, len(captions) - pairs]) / len(captions)
    things = Counter(" ".join(caption.split()[1:3]) for caption in captions)
    assert len(things) == len(COLOURS) * len(SHAPES)
    frequencies = np.array(list(things.values())) / len(captions)
    of_a_thing = -(frequencies * np.log(frequencies)).sum()
    counted = -(shares * np.log(shares)).sum() + of_a_thing * (1 + shares[0]) + math.log(2) * shares[0]
    assert ShapesConfig().blind_nats == pytest.approx(counted, abs=0.05)
    assert ShapesConfig().blind_nats > 7


def test_captions_alone_are_texts():
    config = CaptionTextsConfig(source=ShapesConfig(count=5))
    source, whole = config.open(), ShapesConfig(count=5).open()
    assert [source.document(index).pieces for index in range(5)] == [
        (whole.document(index).pieces[1],) for index in range(5)
    ]
    assert source.fingerprint != whole.fingerprint
    with pytest.raises(BadRecordError, match="no pictures"):
        source.picture(PictureRef(place="0"))


def test_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="count must be positive"):
        ShapesConfig(count=0)
    for place in ("20", "-1", "x"):
        with pytest.raises(BadRecordError, match="no such drawing"):
            ShapesConfig(count=20).open().picture(PictureRef(place=place))
