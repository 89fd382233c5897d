import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from macrorec.graph.bipartite import edges_of
from macrorec.ops import layers, spmm
from macrorec.ops.layers import layer_mean, layer_mean_rows, mean_adjacency, normalized_adjacency
from macrorec.ops.spmm import SparseMatrix

ROWS = torch.tensor([3, 1, 3, 7, 0, 3])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def square(n, seed=0):
    """A random matrix that is not symmetric, dense and sparse."""
    dense = random(n, n, seed=seed)
    dense[dense.abs() < 0.7] = 0
    row, col = dense.nonzero(as_tuple=True)
    return dense, SparseMatrix(row, col, dense[row, col], (n, n))


def mean_by_loops(dense, x, n_layers):
    """LightGCN's sum over layers, literally, node by node."""
    layer, total = x.tolist(), x.tolist()
    n, width = x.shape
    for _ in range(n_layers):
        layer = [[sum(dense[m, k].item() * layer[k][d] for k in range(n)) for d in range(width)] for m in range(n)]
        total = [[total[m][d] + layer[m][d] for d in range(width)] for m in range(n)]
    return torch.tensor(total, dtype=torch.float64) / (n_layers + 1)


@pytest.mark.parametrize("self_loop", [0.0, 1.0, 0.25])
def test_normalized_adjacency_by_loops(self_loop):
    pairs = [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1), (2, 2)]
    edges = edges_of(*np.array(pairs).T, 4, 4)  # user 3 and item 3 are isolated
    a = [
        [self_loop if m == n else float((m, n - 4) in pairs or (n, m - 4) in pairs) for n in range(8)] for m in range(8)
    ]
    degree = [sum(row) for row in a]
    expected = [[a[m][n] / (degree[m] * degree[n]) ** 0.5 if a[m][n] else 0.0 for n in range(8)] for m in range(8)]
    adjacency = normalized_adjacency(edges, 4, 4, self_loop)
    torch.testing.assert_close(spmm.spmm(adjacency, torch.eye(8)), torch.tensor(expected))
    assert adjacency.symmetric
    assert len(adjacency) == sum(value != 0 for row in expected for value in row)


def test_mean_adjacency_is_a_mean_over_neighbours_and_the_node_itself():
    near = {0: [0, 4, 5], 1: [1, 5], 2: [2, 4, 5, 6], 3: [3], 4: [4, 0, 2], 5: [5, 0, 1, 2], 6: [6, 2], 7: [7]}
    edges = edges_of(*np.array([(u, n - 4) for u in range(4) for n in near[u][1:]]).T, 4, 4)
    x = random(8, 3, dtype=torch.float32)
    expected = torch.stack([x[near[node]].mean(0) for node in range(8)])
    torch.testing.assert_close(spmm.spmm(mean_adjacency(edges, 4, 4), x), expected)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3, 4])
def test_mean_of_layers_by_loops(n_layers):
    dense, matrix = square(8)
    x = random(8, 3)
    expected = mean_by_loops(dense, x, n_layers)
    torch.testing.assert_close(layer_mean(matrix, x, n_layers), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer_mean(matrix, x, n_layers, ROWS), expected[ROWS], rtol=0, atol=1e-12)
    mean, first = layer_mean_rows(matrix, x, n_layers, ROWS)
    torch.testing.assert_close(mean, expected[ROWS], rtol=0, atol=1e-12)
    assert torch.equal(first, x[ROWS])
    assert layer_mean(matrix, x, n_layers, ROWS[:0]).shape == (0, 3)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_gradients_through_a_matrix_that_is_not_symmetric(n_layers):
    dense, matrix = square(8)
    x = random(8, 2).requires_grad_()
    assert gradcheck(lambda x: layer_mean(matrix, x, n_layers), x)
    assert gradcheck(lambda x: layer_mean(matrix, x, n_layers, ROWS), x)
    assert gradcheck(lambda x: layer_mean_rows(matrix, x, n_layers, ROWS), x)
    assert gradcheck(lambda x: layer_mean_rows(matrix, x, n_layers, ROWS)[1], x)
    power = sum(torch.linalg.matrix_power(dense, layer) for layer in range(n_layers + 1)) / (n_layers + 1)
    grad = random(6, 2, seed=1)
    (got,) = torch.autograd.grad(layer_mean(matrix, x, n_layers, ROWS), x, grad)
    torch.testing.assert_close(got, power[ROWS].T @ grad, rtol=0, atol=1e-12)


def test_without_kernels_torch_computes_the_same(monkeypatch):
    _, matrix = square(8)

    def everything():
        x = random(8, 3).requires_grad_()
        out = [layer_mean(matrix, x, 3), *layer_mean_rows(matrix, x, 3, ROWS)]
        torch.cat(out).pow(3).sum().backward()
        return *out, x.grad

    ours = everything()
    for module in (layers, spmm):
        monkeypatch.setattr(module, "compiled", lambda x: False)
    for a, b in zip(ours, everything(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_bits_do_not_depend_on_threads():
    random_pairs = np.random.default_rng(0).integers(0, [300, 200], size=(6000, 2))
    adjacency = normalized_adjacency(edges_of(*random_pairs.T, 300, 200), 300, 200)
    rows = torch.randint(0, 500, (400,), generator=torch.Generator().manual_seed(0))
    before, results = torch.get_num_threads(), []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        x = random(500, 32, dtype=torch.float32).requires_grad_()
        mean, first = layer_mean_rows(adjacency, x, 3, rows)
        (mean * first).sum().backward()
        results.append((mean.detach(), x.grad, layer_mean(adjacency, x.detach(), 3)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_rows_outside_the_matrix_are_a_fault_of_ours():
    _, matrix = square(8)
    with pytest.raises(AssertionError, match="inside"):
        layer_mean(matrix, random(8, 2), 2, torch.tensor([8]))
