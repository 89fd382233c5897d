import pytest
import torch

from macrorec.ops import pairs
from macrorec.ops.mlp import MLP
from macrorec.ops.pairs import mlp_of_pairs


def mlp_of(hidden, activation="relu", dim=3, dtype=torch.float64):
    mlp = MLP(2 * dim, hidden, activation, dropout=0.5)
    mlp.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for n, parameter in enumerate(mlp.parameters()):
            parameter.add_(0.1 * (n + 1))  # biases and slopes are not at zero
    return mlp.eval().to(dtype)


def rows(n, seed, dtype=torch.float64):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("at_once", [1, 4, 10, 22, 1 << 13])
@pytest.mark.parametrize("hidden", [(), (4,), (5, 4), (6, 4, 2)])
def test_every_pair_is_the_perceptron_of_both_vectors_joined(hidden, at_once, monkeypatch):
    monkeypatch.setattr(pairs, "_PAIRS_AT_ONCE", at_once)
    mlp, users, items = mlp_of(hidden), rows(7, 1), rows(11, 2)
    with torch.no_grad():
        got = mlp_of_pairs(mlp, users, items)
        expected = [[mlp(torch.cat([u, i])[None]).item() for i in items] for u in users]
    assert got.tolist() == [pytest.approx(row, rel=1e-9) for row in expected]


@pytest.mark.parametrize(("n_users", "n_items"), [(1, 1), (7, 11), (5, 128), (4, 300)])
@pytest.mark.parametrize("hidden", [(4,), (5, 4), (7, 9, 2, 3), (32, 16, 8)])
def test_the_compiled_loop_says_what_torch_says(hidden, n_users, n_items):
    mlp, users, items = mlp_of(hidden, dtype=torch.float32), rows(n_users, 1), rows(n_items, 2)
    with torch.no_grad():
        got = mlp_of_pairs(mlp, users.float(), items.float())
        expected = mlp_of_pairs(mlp.double(), users.float().double(), items.float().double())
    assert got.dtype == torch.float32 and expected.dtype == torch.float64
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr("macrorec.ops.threads.SERIAL", 0)
    mlp, users, items = mlp_of((8, 4), dtype=torch.float32), rows(50, 1).float(), rows(200, 2).float()
    before, got = torch.get_num_threads(), []
    with torch.no_grad():
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            got.append(mlp_of_pairs(mlp, users, items))
    torch.set_num_threads(before)
    assert torch.equal(*got)


def test_gradients_flow_through_all_pairs():
    mlp, users, items = mlp_of((4, 2), dtype=torch.float32), rows(3, 1).float(), rows(5, 2).float()
    mlp_of_pairs(mlp, users, items).sum().backward()
    got = [parameter.grad.clone() for parameter in mlp.parameters()]
    mlp.zero_grad()
    mlp(torch.cat([users.repeat_interleave(5, 0), items.repeat(3, 1)], 1)).sum().backward()
    for one, other in zip(got, mlp.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    mlp, users, items = mlp_of((8, 4), dtype=torch.float32), rows(7, 1).float(), rows(300, 2).float()
    with torch.no_grad():
        expected = mlp_of_pairs(mlp, users, items)
        got = mlp_of_pairs(mlp.cuda(), users.cuda(), items.cuda())
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-5)


def test_dice_takes_its_running_statistics():
    mlp, users, items = mlp_of((4, 3), "dice", dtype=torch.float32), rows(3, 1).float(), rows(5, 2).float()
    with torch.no_grad():
        got = mlp_of_pairs(mlp, users, items)
        expected = mlp(torch.cat([users.repeat_interleave(5, 0), items.repeat(3, 1)], 1)).view(3, 5)
    torch.testing.assert_close(got, expected)


def test_no_users_or_no_items():
    for dtype in (torch.float32, torch.float64):
        mlp = mlp_of((4, 2), dtype=dtype)
        with torch.no_grad():
            assert mlp_of_pairs(mlp, rows(0, 1, dtype), rows(5, 2, dtype)).shape == (0, 5)
            assert mlp_of_pairs(mlp, rows(3, 1, dtype), rows(0, 2, dtype)).shape == (3, 0)
