from math import exp, log

import pytest
import torch
from torch.autograd import gradcheck

from macrorec.ops.losses import bce, bpr, hinge, l2_rows, squared


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def test_bpr_is_the_mean_over_all_negatives():
    pos, neg = random(4), random(4, 3, seed=1)
    terms = [-log(sigmoid(pos[b].item() - neg[b, n].item())) for b in range(4) for n in range(3)]
    assert bpr(pos, neg).item() == pytest.approx(sum(terms) / 12, rel=1e-12)
    assert bpr(pos, neg[:, :1]) == bpr(pos, neg[:, 0])
    assert bpr(torch.zeros(5), torch.zeros(5, 2)).item() == pytest.approx(log(2))


def test_bce_is_the_mean_over_examples():
    score, label = random(5), torch.tensor([1.0, 0.0, 0.25, 1.0, 0.0], dtype=torch.float64)
    terms = [
        -y * log(sigmoid(s)) - (1 - y) * log(1 - sigmoid(s))
        for s, y in zip(score.tolist(), label.tolist(), strict=True)
    ]
    assert bce(score, label).item() == pytest.approx(sum(terms) / 5, rel=1e-12)


def test_hinge_is_the_mean_over_all_negatives():
    pos, neg = random(4), random(4, 3, seed=1)
    terms = [max(0.0, 0.3 + neg[b, n].item() - pos[b].item()) for b in range(4) for n in range(3)]
    assert hinge(pos, neg, margin=0.3).item() == pytest.approx(sum(terms) / 12, rel=1e-12)
    assert hinge(torch.tensor([2.0]), torch.tensor([1.5])).item() == 0.5


def test_squared_is_the_mean_over_examples():
    assert squared(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])).item() == 2.5


def test_l2_rows_is_halved_and_per_example():
    users, items, negatives = random(4, 3), random(4, 3, seed=1), random(4, 2, 3, seed=2)
    total = sum(value**2 for rows in (users, items, negatives) for value in rows.flatten().tolist())
    assert l2_rows(users, items, negatives).item() == pytest.approx(total / 8, rel=1e-12)


def test_gradients():
    pos, neg = random(4).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    label = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    assert gradcheck(bpr, (pos, neg))
    assert gradcheck(hinge, (pos, neg))
    assert gradcheck(lambda score: bce(score, label), pos)
    assert gradcheck(lambda score: squared(score, label), pos)
    assert gradcheck(l2_rows, (neg, neg.detach().clone().requires_grad_()))


def test_large_scores_stay_finite():
    far = torch.tensor([1e4, -1e4])
    assert bpr(far, -far).item() == pytest.approx(1e4)
    assert bce(far, torch.tensor([0.0, 1.0])).item() == pytest.approx(1e4)
