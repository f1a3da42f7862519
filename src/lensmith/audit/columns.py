"""Which tokens become the columns of a matrix, and which rows and columns are kept when some values are missing.

A subset of m > h tokens is enough for the width (Carlini et al., arXiv 2403.06634, section 4.2), so columns are drawn
at random. Left out are special tokens, which servers treat as no others, ids that no answer ever told (padded rows of
the head), and, where a server tells tokens by their text, texts that several tokens may share. The emulator of
that paper drops tokens that are missing in over half of the rows and fills other gaps with the column's mean; a filled
gap breaks an exact rank, so here rows and columns are dropped until none is left.

Legend: N rows, M columns.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from lensmith.audit.reading import BoolArray, Float64Array, Reading
from lensmith.core.endpoint import IdArray
from lensmith.core.errors import InputError, ShapeError

_DISTINCT_TEXT = re.compile(r"\s?[A-Za-z]{3,}")


def choose_columns(ids: IdArray | int, count: int, *, seed: int, skip: Collection[int] = ()) -> IdArray:
    """`count` different ids at random, sorted; the same for the same arguments.

    `ids` are the ids to draw from, or the vocabulary's size. `skip` are never drawn: special tokens, and those never
    seen. Raises InputError where fewer than `count` are left.
    """
    pool = np.arange(ids, dtype=np.int64) if isinstance(ids, int) else np.unique(np.asarray(ids, dtype=np.int64))
    pool = pool[~np.isin(pool, np.array([*skip], dtype=np.int64))]
    if not 0 < count <= len(pool):
        raise InputError("not that many tokens to choose from", expected=f"1 to {len(pool)}", actual=count)
    return np.sort(np.random.default_rng(seed).choice(pool, size=count, replace=False))


def distinct_texts(texts: Mapping[int, str]) -> IdArray:
    """The ids whose text names them alone: at least 3 ASCII letters (after at most one space), and no other id's.

    Pieces of letters beyond ASCII, bytes and numbers collide: a server that keys answers by text shows one of them.
    """
    shared = Counter(texts.values())
    named = [each for each, text in texts.items() if shared[text] == 1 and _DISTINCT_TEXT.fullmatch(text)]
    return np.array(sorted(named), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The part of a matrix that has no gap: which rows and columns of the whole it holds."""

    logits_NM: Float64Array
    rows_N: IdArray
    columns_M: IdArray


def keep_complete(logits_NM: Float64Array, *, most_missing: float = 0.5) -> Kept:
    """Drops rows and columns until no value is missing (NaN or infinite).

    First columns, then rows with over `most_missing` of their values missing; then, one by one, the row or column with
    the largest missing part. What is left may be empty. Raises ShapeError unless `logits_NM` is a matrix.
    """
    if logits_NM.ndim != 2:
        raise ShapeError("a matrix is needed", expected="(rows, columns)", actual=logits_NM.shape)
    missing_NM = ~np.isfinite(logits_NM)
    rows_N, columns_M = np.ones(len(logits_NM), dtype=bool), np.ones(logits_NM.shape[1], dtype=bool)
    if missing_NM.size:
        rows_N &= ~missing_NM.all(axis=1)
        columns_M &= _part(missing_NM[rows_N], axis=0) <= most_missing
        rows_N &= _part(missing_NM[:, columns_M], axis=1) <= most_missing
        _drop_one_by_one(missing_NM, rows_N, columns_M)
    return Kept(
        logits_NM=logits_NM[np.ix_(rows_N, columns_M)],
        rows_N=np.flatnonzero(rows_N),
        columns_M=np.flatnonzero(columns_M),
    )


def complete_part(reading: Reading) -> Reading:
    """The reading without the rows and columns that `keep_complete` drops, and a note of how many went."""
    kept = keep_complete(reading.logits_NM)
    lost_rows, lost_columns = np.array(reading.logits_NM.shape) - kept.logits_NM.shape
    note = f"dropped {lost_rows} rows and {lost_columns} columns in which a value was missing"
    return Reading(
        logits_NM=kept.logits_NM,
        token_ids_M=reading.token_ids_M[kept.columns_M],
        top_N=reading.top_N[kept.rows_N],
        precision_nats=reading.precision_nats,
        spent=reading.spent,
        notes=(*reading.notes, *([note] if lost_rows or lost_columns else [])),
    )


def _drop_one_by_one(missing_NM: BoolArray, rows_N: BoolArray, columns_M: BoolArray) -> None:
    """Clears flags of `rows_N` and `columns_M` until no value that both keep is missing."""
    open_NM = missing_NM & rows_N[:, None] & columns_M
    of_row_N, of_column_M = open_NM.sum(axis=1), open_NM.sum(axis=0)
    while of_row_N.any():
        row, column = int(of_row_N.argmax()), int(of_column_M.argmax())
        if of_row_N[row] / columns_M.sum() >= of_column_M[column] / rows_N.sum():
            rows_N[row] = False
            of_column_M -= open_NM[row]
            of_row_N[row], open_NM[row] = 0, False
        else:
            columns_M[column] = False
            of_row_N -= open_NM[:, column]
            of_column_M[column], open_NM[:, column] = 0, False


def _part(missing_NM: BoolArray, *, axis: int) -> Float64Array:
    """The missing part of each column (axis 0) or row (axis 1); 1 where there is nothing to look at."""
    looked_at = missing_NM.shape[axis]
    shape = missing_NM.shape[1 - axis]
    return missing_NM.sum(axis=axis) / looked_at if looked_at else np.ones(shape)
