"""Matrices that grow: read once, kept on disk, and free of each call's own constant."""

from dataclasses import dataclass

import numpy as np
import pytest

from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.querying.contexts import ContextForm, Contexts, first_of_each_form, form_of
from lensmith.audit.stages.matrix import GrowingMatrix, RowStore
from lensmith.core.errors import InputError
from lensmith.core.images import open_picture


@dataclass(frozen=True)
class Read:
    logits_NM: np.ndarray
    resolution_nats: float = 1e-6


class SumReader:
    """Tells context number + token id squared, up to a constant of each call and row."""

    read_out = ReadOut.P3

    def __init__(self, holes=()):
        self.cells = []
        self.rng = np.random.default_rng(0)
        self.holes = set(holes)

    def read(self, endpoint, contexts, token_ids):
        rows = [hash(context.prompt) % 1000 for context in contexts]
        self.cells += [(context.prompt, int(token)) for context in contexts for token in token_ids[1:]]
        values = np.array([[row * token**0.5 for token in token_ids] for row in rows]).astype(float)
        for place, token in enumerate(token_ids.tolist()):
            if token in self.holes:
                values[:, place] = np.nan
        return Read(values + self.rng.normal(size=(len(rows), 1)))

    def queries_for(self, rows, columns):
        return Cost(queries=rows * (columns - 1))


COLUMNS = np.array([7, 3, 9, 4, 100, 55, 23, 81, 64], dtype=np.int64)


def expected(contexts, rows, columns):
    numbers = np.array([hash(context.prompt) % 1000 for context in contexts.take(0, rows)])
    ids = COLUMNS[: columns + 1].astype(float) ** 0.5
    return numbers[:, None] * (ids - ids[0])  # the reference's own column is 0


def growing(tmp_path, reader):
    return GrowingMatrix(tmp_path, Contexts(ContextForm.PROMPT, 0), reader, COLUMNS)


def test_nothing_is_read_twice_and_all_fits_together(tmp_path):
    reader = SumReader()
    matrix = growing(tmp_path, reader)
    assert matrix.cost_of(5, 3).queries == 15
    matrix.grow(None, 5, 3, lambda done, total: None)
    assert matrix.cost_of(5, 3).queries == 0
    assert matrix.cost_of(9, 6).queries == 4 * 3 + 9 * 3
    matrix.grow(None, 9, 6, lambda done, total: None)
    assert len(reader.cells) == len(set(reader.cells)) == 54
    np.testing.assert_allclose(matrix.complete(9, 6).logits_NM, expected(matrix.contexts, 9, 6), atol=1e-9)


def test_what_was_read_is_there_after_a_restart(tmp_path):
    growing(tmp_path, SumReader()).grow(None, 6, 4, lambda done, total: None)
    reader = SumReader()
    matrix = growing(tmp_path, reader)
    assert matrix.cost_of(6, 4).queries == 0
    assert matrix.cost_of(8, 4).queries == 2 * 4
    matrix.grow(None, 8, 4, lambda done, total: None)
    assert len(reader.cells) == 2 * 4
    np.testing.assert_allclose(matrix.complete(8, 4).logits_NM, expected(matrix.contexts, 8, 4), atol=1e-9)


class FourAtOnce(SumReader):
    """Tells up to four tokens a call beside the reference."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def read(self, endpoint, contexts, token_ids):
        self.calls += self.queries_for(len(contexts), len(token_ids)).queries
        return super().read(endpoint, contexts, token_ids)

    def queries_for(self, rows, columns):
        return Cost(queries=rows * -(-(columns - 1) // 4))


def test_rows_that_all_groups_lack_are_read_in_calls_that_are_full(tmp_path):
    reader = FourAtOnce()
    matrix = growing(tmp_path, reader)
    for rows, columns, calls in ((5, 2, 5), (5, 4, 5), (9, 4, 4), (12, 8, 12 + 3)):
        assert matrix.cost_of(rows, columns).queries == calls
        before = reader.calls
        matrix.grow(None, rows, columns, lambda done, total: None)
        assert reader.calls == before + calls
        np.testing.assert_allclose(
            matrix.complete(rows, columns).logits_NM, expected(matrix.contexts, rows, columns), atol=1e-9
        )


def test_rows_may_grow_for_the_first_columns_alone(tmp_path):
    reader = SumReader()
    matrix = growing(tmp_path, reader)
    matrix.grow(None, 4, 3, lambda done, total: None)
    matrix.grow(None, 4, 8, lambda done, total: None)
    assert matrix.cost_of(10, 2).queries == 6 * 3  # whole groups
    matrix.grow(None, 10, 2, lambda done, total: None)
    assert len(reader.cells) == 4 * 8 + 6 * 3
    np.testing.assert_allclose(matrix.complete(10, 2).logits_NM, expected(matrix.contexts, 10, 2), atol=1e-9)
    np.testing.assert_allclose(matrix.complete(4, 8).logits_NM, expected(matrix.contexts, 4, 8), atol=1e-9)
    np.testing.assert_allclose(
        matrix.whole(9, 3, first_row=6).logits_NM, expected(matrix.contexts, 9, 3)[6:], atol=1e-9
    )


def test_a_column_that_cannot_be_read_is_left_out(tmp_path):
    matrix = growing(tmp_path, SumReader(holes=[9]))
    matrix.grow(None, 6, 4, lambda done, total: None)
    part = matrix.complete(6, 4)
    np.testing.assert_allclose(part.logits_NM, np.delete(expected(matrix.contexts, 6, 4), 2, axis=1), atol=1e-9)
    assert part.token_ids_M.tolist() == [7, 3, 4, 100]


def test_rows_of_another_matrix_are_refused(tmp_path):
    RowStore(tmp_path / "a", "x", [1, 2]).extend(np.ones((3, 2)), 1e-3)
    with pytest.raises(InputError, match="another matrix"):
        RowStore(tmp_path / "a", "x", [1, 3])


def test_a_row_that_was_cut_short_is_cut_off(tmp_path):
    RowStore(tmp_path / "a", "x", [1, 2]).extend(np.arange(6.0).reshape(3, 2), 1e-3)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-3])
    store = RowStore(tmp_path / "a", "x", [1, 2])
    assert store.num_rows == 2
    store.extend(np.array([[8.0, 9.0]]), 2e-3)
    assert store.matrix().tolist() == [[0, 1], [2, 3], [8, 9]]
    assert store.resolution_nats(2) == pytest.approx(1e-3)
    assert store.resolution_nats(3) == pytest.approx(np.sqrt((1 + 1 + 4) / 3) * 1e-3)


@pytest.mark.parametrize("form", ContextForm)
def test_contexts_come_again_from_their_seed_and_differ_otherwise(form):
    some = Contexts(form, 3).take(0, 30)
    assert some == Contexts(form, 3).take(0, 30)
    assert len({repr(context) for context in some}) == 30
    assert some[0] != Contexts(form, 4)[0]
    assert {form_of(context) for context in some} == {form}


def test_every_form_is_tried_and_pictures_can_be_opened():
    forms = [form_of(context) for context in first_of_each_form(0)]
    assert sorted(form.value for form in forms) == sorted(form.value for form in ContextForm)
    picture = Contexts(ContextForm.PICTURE, 0)[0].messages[0].parts[0]
    assert open_picture(picture.data).size == (384, 192)
