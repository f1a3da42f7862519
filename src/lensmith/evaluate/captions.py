"""CIDEr: how far a written caption agrees with what people wrote, by runs of up to four words, rare ones counting more.

CIDEr-D (Vedantam, Zitnick and Parikh, arXiv 1411.5726, section 5) as the reference implementation of the COCO captions
computes it (PyPI `pycocoevalcap` 1.2), whose figures papers give; one thing there is odd and kept, see `_Bag.length`.

Where we differ: captions are cut into words by `words`, since the reference's tokenizer is a Java program. On plain
lower-case captions both give the same words; elsewhere figures compare with each other, not with published ones.

Legend: C captions.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import InputError

_LONGEST = 4
_LENGTH_DEVIATION = 6.0
_FULL_SCORE = 10.0
_WORD = re.compile(r"\w+(?:['’-]\w+)*")

Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a caption in small letters, without punctuation; words with a hyphen or an apostrophe stay whole."""
    return _WORD.findall(text.lower())


def cider(written: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
    """The score of each caption (C), from 0 to 10, beside its own references; their mean is the figure of papers.

    How rare words are is counted in the references of all, so a score depends on what else is scored: one picture alone
    has 0. Raises InputError where captions and references differ in number, or a caption has no reference.
    """
    fewest = min(map(len, references), default=0)
    if len(written) != len(references) or (references and not fewest):
        raise InputError(
            "captions and references do not belong together",
            expected="at least one reference for each caption",
            actual=f"{len(written)} captions, {len(references)} lists of references, the shortest of {fewest}",
        )
    known = [[_grams(text) for text in texts] for texts in references]
    appears = Counter(gram for grams in known for gram in set().union(*grams))
    rarities = _Rarities(
        {gram: math.log(len(known) / count) for gram, count in appears.items()}, math.log(len(known) or 1)
    )
    scores = [
        np.mean([_likeness(rarities.bag(_grams(text)), rarities.bag(reference)) for reference in own])
        for text, own in zip(written, known, strict=True)
    ]
    return _FULL_SCORE * np.array(scores, dtype=np.float64)


@dataclass(frozen=True)
class _Bag:
    """A caption's n-grams, each with how often it stands there times how rare it is, and their norms by length.

    `length` is what captions are compared by that say too much: how many pairs of words there are, where the paper has
    words. So the reference computes it.
    """

    weights: dict[Gram, float]
    norms: tuple[float, ...]
    length: int


@dataclass(frozen=True)
class _Rarities:
    """How rare n-grams are; what no reference has is as rare as can be."""

    known: dict[Gram, float]
    unknown: float

    def bag(self, counts: "Counter[Gram]") -> _Bag:
        weights = {gram: count * self.known.get(gram, self.unknown) for gram, count in counts.items()}
        squares = [0.0] * _LONGEST
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight**2
        pairs = sum(count for gram, count in counts.items() if len(gram) == 2)
        return _Bag(weights, tuple(map(math.sqrt, squares)), pairs)


def _grams(text: str) -> "Counter[Gram]":
    said = words(text)
    return Counter(
        tuple(said[begin : begin + length])
        for length in range(1, _LONGEST + 1)
        for begin in range(len(said) - length + 1)
    )


def _likeness(written: _Bag, reference: _Bag) -> float:
    """The cosine of both for each length of n-grams, mean over lengths; repeating a word gains nothing."""
    products = [0.0] * _LONGEST
    for gram, weight in written.weights.items():
        known = reference.weights.get(gram, 0.0)
        products[len(gram) - 1] += min(weight, known) * known
    norms = [own * other for own, other in zip(written.norms, reference.norms, strict=True)]
    cosines = [product / norm if norm else 0.0 for product, norm in zip(products, norms, strict=True)]
    too_long = math.exp(-((written.length - reference.length) ** 2) / (2 * _LENGTH_DEVIATION**2))
    return too_long * sum(cosines) / _LONGEST
