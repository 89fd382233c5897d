import pytest
import torch

from macrorec.ops import pairs
from macrorec.ops.mlp import MLP
from macrorec.ops.pairs import mlp_of_pairs


def mlp_of(hidden, activation="relu", dim=3):
    mlp = MLP(2 * dim, hidden, activation, dropout=0.5)
    mlp.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for n, parameter in enumerate(mlp.parameters()):
            parameter.add_(0.1 * (n + 1))  # biases and slopes are not at zero
    return mlp.eval().double()


def rows(n, seed):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("at_once", [1, 4, 10, 22, 1 << 13])
@pytest.mark.parametrize("hidden", [(), (4,), (5, 4), (6, 4, 2)])
def test_every_pair_is_the_perceptron_of_both_vectors_joined(hidden, at_once, monkeypatch):
    monkeypatch.setattr(pairs, "_PAIRS_AT_ONCE", at_once)
    mlp, users, items = mlp_of(hidden), rows(7, 1), rows(11, 2)
    with torch.no_grad():
        got = mlp_of_pairs(mlp, users, items)
        expected = [[mlp(torch.cat([u, i])[None]).item() for i in items] for u in users]
    assert got.tolist() == [pytest.approx(row, rel=1e-9) for row in expected]


def test_dice_takes_its_running_statistics():
    mlp, users, items = mlp_of((4, 3), "dice"), rows(3, 1), rows(5, 2)
    with torch.no_grad():
        got = mlp_of_pairs(mlp, users, items)
        expected = mlp(torch.cat([users.repeat_interleave(5, 0), items.repeat(3, 1)], 1)).view(3, 5)
    torch.testing.assert_close(got, expected)


def test_no_users_or_no_items():
    mlp = mlp_of((4, 2))
    assert mlp_of_pairs(mlp, rows(0, 1), rows(5, 2)).shape == (0, 5)
    assert mlp_of_pairs(mlp, rows(3, 1), rows(0, 2)).shape == (3, 0)
