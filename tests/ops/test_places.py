import pytest
import torch

from macrorec.ops.places import placed


def order_by_loops(score, bonus, free, k):
    """The free items of the k largest score + bonus, by score; then all others by score + bonus."""
    raised = [s + b for s, b in zip(score, bonus, strict=True)]
    chosen = sorted((i for i in range(len(score)) if free[i]), key=lambda i: -raised[i])[:k]
    rest = sorted((i for i in range(len(score)) if i not in chosen), key=lambda i: -raised[i])
    return sorted(chosen, key=lambda i: -score[i]) + rest


def test_by_hand():
    # Item 3 gets the second place by its bonus, and stands behind item 0, which is likelier; item 1 is left out.
    got = placed(torch.tensor([[4.0, 3.0, 1.0, 2.0]]), torch.tensor([[0.0, 0.0, 0.5, 3.0]]), torch.ones(1, 4).bool(), 2)
    assert got.argsort(descending=True).tolist() == [[0, 3, 1, 2]]
    assert got[0, [0, 3]].tolist() == [4, 2], "those in the list keep their score"


@pytest.mark.parametrize("k", [1, 3, 7, 9])
def test_random_scores_equal_the_loops(k):
    generator = torch.Generator().manual_seed(k)
    score, free = torch.randn(40, 7, generator=generator), torch.rand(40, 7, generator=generator) < 0.7
    free[0] = False
    bonus = 1.5 * (torch.rand(40, 7, generator=generator) < 0.5)
    got = placed(score, bonus, free, k)
    assert got.isfinite().all()
    for b, row in enumerate(got.argsort(1, descending=True).tolist()):
        assert row == order_by_loops(score[b].tolist(), bonus[b].tolist(), free[b].tolist(), k), b


def test_no_items_have_no_order():
    assert placed(torch.zeros(2, 0), torch.zeros(2, 0), torch.ones(2, 0).bool(), 3).shape == (2, 0)
