"""How alike many strings are: `difflib.SequenceMatcher(None, a, b).ratio()`, exactly, for whole tables of pairs.

Design2Code compares every text of one page with every text of the other, again after each merge it tries. `difflib`
takes 20 to 100 microseconds a pair, so one page would cost a second. Here all pairs go through the algorithm together
(Ratcliff and Obershelp: the longest common run, then left and right of it, and so on): numpy finds the longest run of
thousands of pairs at once. Ties fall as in `difflib`: the longest, then the first in `a`, then the first in `b`. Where
`b` has 200 characters or more, `difflib` leaves popular characters out ("autojunk"); such pairs go to `difflib` itself.
No bound is used in place of a value, so that assignments between equal costs also fall as they would there.

Legend: S searches under way, A longest piece of `a` among them, B longest piece of `b`.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensmith.core.arrays import Float64Array

IntArray = NDArray[np.int64]
CodeArray = NDArray[np.uint8] | NDArray[np.uint32]

_AUTOJUNK_LENGTH = 200
_CELLS_AT_ONCE = 1 << 18  # keeps the table of runs inside the second-level cache
_PAD_A, _PAD_B = 0, 1  # two codes that no character has and that differ, so padding never matches


class RatioTable:
    """Ratios of texts of one page (`a`) against texts of another (`b`), each pair computed once."""

    def __init__(self) -> None:
        self._a_ids: dict[str, int] = {}
        self._b_ids: dict[str, int] = {}
        self._known = np.full((64, 64), np.nan)

    def ratios(self, a_texts: Sequence[str], b_texts: Sequence[str]) -> Float64Array:
        """Shape (len(a_texts), len(b_texts)): ratio of each pair, in 0..1."""
        rows = np.array([self._a_ids.setdefault(text, len(self._a_ids)) for text in a_texts], dtype=np.int64)
        columns = np.array([self._b_ids.setdefault(text, len(self._b_ids)) for text in b_texts], dtype=np.int64)
        self._grow()
        self._learn(rows, columns)
        return self._known[rows[:, None], columns[None, :]]

    def _grow(self) -> None:
        rows, columns = self._known.shape
        if len(self._a_ids) > rows or len(self._b_ids) > columns:
            larger = np.full((max(rows, 2 * len(self._a_ids)), max(columns, 2 * len(self._b_ids))), np.nan)
            larger[:rows, :columns] = self._known
            self._known = larger

    def _learn(self, rows: IntArray, columns: IntArray) -> None:
        rows, columns = np.unique(rows), np.unique(columns)
        unknown_rows, unknown_columns = np.nonzero(np.isnan(self._known[rows[:, None], columns[None, :]]))
        if unknown_rows.size:
            row_ids, column_ids = rows[unknown_rows], columns[unknown_columns]
            self._known[row_ids, column_ids] = pair_ratios(list(self._a_ids), list(self._b_ids), row_ids, column_ids)


def pair_ratios(a_texts: Sequence[str], b_texts: Sequence[str], a_index: IntArray, b_index: IntArray) -> Float64Array:
    """`SequenceMatcher(None, a_texts[i], b_texts[j]).ratio()` for every pair of indices; both of shape (pairs,)."""
    a_lengths = np.array([len(text) for text in a_texts], dtype=np.int64)[a_index]
    b_lengths = np.array([len(text) for text in b_texts], dtype=np.int64)[b_index]
    total = a_lengths + b_lengths
    matched = np.zeros(len(a_index), dtype=np.int64)

    junked = (b_lengths >= _AUTOJUNK_LENGTH) & (a_lengths > 0)
    plain = np.flatnonzero((b_lengths < _AUTOJUNK_LENGTH) & (b_lengths > 0) & (a_lengths > 0))
    if plain.size:
        matched[plain] = _matched_characters(a_texts, b_texts, a_index[plain], b_index[plain])
    ratios = np.where(total > 0, 2.0 * matched / np.maximum(total, 1), 1.0)
    for pair, ratio in _junked_ratios(a_texts, b_texts, a_index, b_index, np.flatnonzero(junked)):
        ratios[pair] = ratio
    return ratios


def _junked_ratios(
    a_texts: Sequence[str], b_texts: Sequence[str], a_index: IntArray, b_index: IntArray, pairs: IntArray
) -> Iterator[tuple[int, float]]:
    matcher, of_b = SequenceMatcher[str](None), -1
    for pair in pairs[np.argsort(b_index[pairs], kind="stable")]:
        if b_index[pair] != of_b:  # difflib indexes its second text once and keeps the index
            of_b = int(b_index[pair])
            matcher.set_seq2(b_texts[of_b])
        matcher.set_seq1(a_texts[int(a_index[pair])])
        yield int(pair), matcher.ratio()


class _Searches(NamedTuple):
    """Pieces still to be compared: starts and lengths within the flat codes, and each one's pair. (S,) each."""

    a_start: IntArray
    a_length: IntArray
    b_start: IntArray
    b_length: IntArray
    pair: IntArray

    def take(self, which: IntArray | NDArray[np.bool_]) -> "_Searches":
        return _Searches(*(part[which] for part in self))


class _Runs(NamedTuple):
    """The longest common run of each search: its length and where it begins in both pieces. (S,) each."""

    length: IntArray
    a_at: IntArray
    b_at: IntArray


class _Codes(NamedTuple):
    """All characters of all texts, numbered densely from 2 so that most pages fit one byte each."""

    flat: CodeArray
    a_start: IntArray
    b_start: IntArray


def _matched_characters(
    a_texts: Sequence[str], b_texts: Sequence[str], a_index: IntArray, b_index: IntArray
) -> IntArray:
    codes = _encode(a_texts, b_texts)
    a_lengths = np.array([len(text) for text in a_texts], dtype=np.int64)
    b_lengths = np.array([len(text) for text in b_texts], dtype=np.int64)
    searches = _Searches(
        codes.a_start[a_index], a_lengths[a_index], codes.b_start[b_index], b_lengths[b_index], np.arange(len(a_index))
    )
    matched = np.zeros(len(a_index), dtype=np.int64)
    while searches.pair.size:
        runs = _longest_runs(codes, searches)
        matched += np.bincount(searches.pair, weights=runs.length, minlength=len(matched)).astype(np.int64)
        searches = _left_and_right(searches, runs)
    return matched


def _encode(a_texts: Sequence[str], b_texts: Sequence[str]) -> _Codes:
    texts = [*a_texts, *b_texts]
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds, numbered = np.unique(points, return_inverse=True)
    flat = numbered + 2
    starts = np.cumsum([0, *(len(text) for text in texts)])[:-1]
    codes: CodeArray = flat.astype(np.uint8) if len(kinds) + 2 <= 256 else flat.astype(np.uint32)
    return _Codes(codes, starts[: len(a_texts)], starts[len(a_texts) :])


def _left_and_right(searches: _Searches, runs: _Runs) -> _Searches:
    """What lies before and behind each run, where both sides still hold something."""
    found = runs.length > 0
    left = (found & (runs.a_at > 0) & (runs.b_at > 0)).nonzero()[0]
    a_end, b_end = runs.a_at + runs.length, runs.b_at + runs.length
    right = (found & (a_end < searches.a_length) & (b_end < searches.b_length)).nonzero()[0]
    return _Searches(
        np.concatenate([searches.a_start[left], (searches.a_start + a_end)[right]]),
        np.concatenate([runs.a_at[left], (searches.a_length - a_end)[right]]),
        np.concatenate([searches.b_start[left], (searches.b_start + b_end)[right]]),
        np.concatenate([runs.b_at[left], (searches.b_length - b_end)[right]]),
        np.concatenate([searches.pair[left], searches.pair[right]]),
    )


def _longest_runs(codes: _Codes, searches: _Searches) -> _Runs:
    runs = _Runs(*(np.zeros(len(searches.pair), dtype=np.int64) for _ in range(3)))
    for chosen in _batches(searches):
        part = _longest_runs_of_batch(codes, searches.take(chosen))
        for whole, piece in zip(runs, part, strict=True):
            whole[chosen] = piece
    return runs


def _batches(searches: _Searches) -> Iterator[IntArray]:
    """Searches of like size together (padding is work), as many as `_CELLS_AT_ONCE` allows."""
    size_class = np.ceil(np.log2(searches.a_length) / 2).astype(np.int64)  # 1, 2-4, 5-16, 17-64...
    order = np.lexsort((searches.b_length, size_class))
    bounds = np.flatnonzero(np.diff(size_class[order])) + 1
    for group in np.split(order, bounds):
        begin = 0
        while begin < len(group):
            widest = int(searches.b_length[group[begin:]].max())
            end = begin + max(1, _CELLS_AT_ONCE // widest)
            yield group[begin:end]
            begin = end


def _longest_runs_of_batch(codes: _Codes, searches: _Searches) -> _Runs:
    """Row by row through `a`: how long a run ends at each place of `b`; the first row with the longest one is kept.

    `runs_BS` is a window that slides one place down its buffer with every row, so that the run which ended one place
    earlier in both texts is already where it is to be extended.
    """
    a_AS = _padded(codes.flat, searches.a_start, searches.a_length, _PAD_A)
    b_BS = _padded(codes.flat, searches.b_start, searches.b_length, _PAD_B)
    (a_rows, count), b_rows = a_AS.shape, b_BS.shape[0]
    buffer = np.zeros((a_rows + b_rows, count), dtype=np.uint8)  # a run is at most 199 long: b is shorter than 200
    longest_AS = np.empty((a_rows, count), dtype=np.uint8)
    same_BS = np.empty(b_BS.shape, dtype=np.bool_)
    for row in range(a_rows):
        runs_BS = buffer[a_rows - 1 - row : a_rows - 1 - row + b_rows]
        np.equal(b_BS, a_AS[row], out=same_BS)
        runs_BS += 1
        runs_BS *= same_BS
        np.maximum.reduce(runs_BS, axis=0, out=longest_AS[row])
    length = longest_AS.max(axis=0).astype(np.int64)
    a_at = np.where(length > 0, longest_AS.argmax(axis=0) + 1 - length, 0)
    return _Runs(length, a_at, _first_place(a_AS, b_BS, a_at, length))


def _first_place(a_AS: CodeArray, b_BS: CodeArray, a_at: IntArray, length: IntArray) -> IntArray:
    """Where in `b` the piece `a[a_at : a_at + length]` first occurs; it is known to occur."""
    searches = np.arange(len(length))
    fits_BS = np.ones(b_BS.shape, dtype=np.bool_)
    for offset in range(int(length.max())):
        wanted = a_AS[np.minimum(a_at + offset, len(a_AS) - 1), searches]
        fits_BS[: len(b_BS) - offset] &= (b_BS[offset:] == wanted) | (offset >= length)
    first: IntArray = fits_BS.argmax(axis=0)
    return first


def _padded(flat: CodeArray, starts: IntArray, lengths: IntArray, pad: int) -> CodeArray:
    """Pieces as columns, shape (longest, S), padded at the end."""
    offsets = np.arange(int(lengths.max()))[:, None]
    pieces: CodeArray = flat.take(starts + offsets, mode="clip")
    np.putmask(pieces, offsets >= lengths, pad)
    return pieces
