import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import ShapeError
from lensmith.models.splice import refuse_placeholders, splice

IMAGE = 9


@given(rows=st.lists(st.lists(st.sampled_from([1, 2, IMAGE]), min_size=5, max_size=5), min_size=1, max_size=4))
def test_features_fill_placeholders_in_reading_order_and_nothing_else_moves(rows):
    ids = torch.tensor(rows)
    embeds = torch.randn(*ids.shape, 3)
    count = int((ids == IMAGE).sum())
    features = 100 + torch.arange(count * 3.0).reshape(count, 3)

    spliced = splice(embeds, ids, features, IMAGE)

    assert torch.equal(spliced[ids == IMAGE], features)
    assert torch.equal(spliced[ids != IMAGE], embeds[ids != IMAGE])


@pytest.mark.parametrize("features", [0, 4, 6])
def test_a_mismatch_names_both_counts(features):
    ids = torch.tensor([[IMAGE, IMAGE, 1, IMAGE], [IMAGE, 1, 1, IMAGE]])
    with pytest.raises(ShapeError) as caught:
        splice(torch.zeros(2, 4, 3), ids, torch.zeros(features, 3), IMAGE)
    assert "5 placeholders (3, 2 a sample)" in str(caught.value)
    assert f"{features} features" in str(caught.value)


def test_a_mismatch_lists_the_features_of_each_picture():
    with pytest.raises(ShapeError, match=r"7 features \(4, 3 a picture\)"):
        splice(torch.zeros(1, 2, 3), torch.tensor([[IMAGE, 1]]), torch.zeros(7, 3), IMAGE, torch.tensor([4, 3]))


def test_a_picture_may_not_be_split_between_samples():
    ids = torch.tensor([[IMAGE, IMAGE, IMAGE], [1, 1, IMAGE]])
    splice(torch.zeros(2, 3, 3), ids, torch.zeros(4, 3), IMAGE, torch.tensor([1, 2, 1]))
    with pytest.raises(ShapeError, match="split between sample 0 and the next"):
        splice(torch.zeros(2, 3, 3), ids, torch.zeros(4, 3), IMAGE, torch.tensor([2, 2]))


def test_features_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="wrong width"):
        splice(torch.zeros(1, 2, 3), torch.tensor([[IMAGE, 1]]), torch.zeros(1, 4), IMAGE)


def test_features_take_the_precision_of_the_embeddings():
    spliced = splice(torch.zeros(1, 2, 3, dtype=torch.bfloat16), torch.tensor([[IMAGE, 1]]), torch.ones(1, 3), IMAGE)
    assert spliced.dtype == torch.bfloat16
    assert spliced[0, 0].tolist() == [1, 1, 1]


def test_gradients_reach_features_and_the_other_embeddings_only():
    embeds = torch.randn(1, 3, 2, requires_grad=True)
    features = torch.randn(1, 2, requires_grad=True)
    splice(embeds, torch.tensor([[1, IMAGE, 2]]), features, IMAGE).sum().backward()
    assert features.grad.tolist() == [[1, 1]]
    assert embeds.grad.tolist() == [[[1, 1], [0, 0], [1, 1]]]


def test_placeholders_without_pictures_are_refused():
    refuse_placeholders(torch.tensor([[1, 2]]), IMAGE)
    with pytest.raises(ShapeError, match=r"2 placeholders \(0, 2 a sample\)"):
        refuse_placeholders(torch.tensor([[1, 2], [IMAGE, IMAGE]]), IMAGE)
