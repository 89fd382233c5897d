import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from macrorec.graph.bipartite import edges_of
from macrorec.ops import edge_loops as module
from macrorec.ops.adjacency import Adjacency
from macrorec.ops.edges import kept, normalise, propagate, weigh

PATTERN = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1]])  # user 1, item 2: nobody


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def adjacency_of(pattern):
    user, item = pattern.nonzero(as_tuple=True)
    return Adjacency(edges_of(user.numpy(), item.numpy(), *pattern.shape), pattern.shape[1])


def large(n_users=300, n_items=200, share=0.3, seed=0):
    return adjacency_of((torch.rand(n_users, n_items, generator=torch.Generator().manual_seed(seed)) < share).int())


def dense(pattern, value_E):
    """The symmetric (N, N) matrix of values on edges."""
    block = torch.zeros(pattern.shape, dtype=value_E.dtype)
    block[pattern.nonzero(as_tuple=True)] = value_E
    n_users, n_items = pattern.shape
    top = torch.cat([torch.zeros(n_users, n_users, dtype=value_E.dtype), block], 1)
    return torch.cat([top, torch.cat([block.T, torch.zeros(n_items, n_items, dtype=value_E.dtype)], 1)])


quick = partial(gradcheck, fast_mode=True)
"""Along random directions, not entry by entry."""


@pytest.fixture
def threads():
    """Sets the number of threads; puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["compiled", "torch"])
def loops(request, monkeypatch):
    """The compiled loops, and what torch does in their place."""
    if request.param == "torch":
        monkeypatch.setattr(module, "compiled", lambda x: False)
        monkeypatch.setattr("macrorec.ops.spmm.compiled", lambda x: False)
        monkeypatch.setattr(module, "_AT_ONCE", 5)


def test_every_edge_is_an_entry_of_both_its_ends():
    adjacency = adjacency_of(PATTERN)
    value_E = torch.arange(1.0, 10.0)
    start, node, value = adjacency.side(value_E)
    matrix = torch.zeros(9, 9)
    for n in range(9):
        for f in range(start[n], start[n + 1]):
            matrix[n, node[f]] = value[f]
    assert torch.equal(matrix, dense(PATTERN, value_E))
    assert torch.equal(adjacency.folded(value), 2 * value_E)
    assert not adjacency.state_dict()


@pytest.mark.parametrize("hidden", [None, [0, 4, 8]])
@pytest.mark.parametrize("width", [1, 3])
def test_weights_by_loops(loops, width, hidden):
    x, beta = random(9, width, seed=1), random(width, seed=2)
    weight, distance = weigh(adjacency_of(PATTERN), x, beta, None if hidden is None else torch.tensor(hidden))
    edges = PATTERN.nonzero().tolist()
    logit = []
    for u, i in edges:
        along = sum(abs(x[u, d] - x[5 + i, d]).item() * beta[d].item() for d in range(width))
        logit.append(along if along > 0 else math.exp(along) - 1)
    for e, (u, i) in enumerate(edges):
        seen = [k for k, (v, _) in enumerate(edges) if v == u and k not in (hidden or [])]
        expected = math.exp(logit[e]) / sum(math.exp(logit[k]) for k in seen) if e in seen else 0
        assert weight[e].item() == pytest.approx(expected, abs=1e-12)
        assert distance[e].item() == pytest.approx((x[u] - x[5 + i]).square().sum().item(), abs=1e-12)


def test_weights_of_a_user_sum_to_one_however_large_the_logits(loops):
    x = torch.tensor([[0.0], [1e4], [-1e4], [200.0]], dtype=torch.float32)
    adjacency = adjacency_of(torch.tensor([[1, 1, 1]]))
    assert weigh(adjacency, x, torch.tensor([1.0]))[0].tolist() == pytest.approx([0.5, 0.5, 0])
    assert weigh(adjacency, x, torch.tensor([-1.0]))[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("self_loop", [0.0, 0.4])
def test_normalised_values_by_a_dense_matrix(loops, counted, self_loop):
    weight = random(9).abs()
    value, own = normalise(adjacency_of(PATTERN), weight, self_loop, counted=counted)
    matrix = dense(PATTERN, weight) + self_loop * torch.eye(9, dtype=torch.float64)
    counts = dense(PATTERN, torch.ones(9, dtype=torch.float64)).sum(1) + self_loop
    scale = (counts if counted else matrix.sum(1)) ** -0.5
    scale[scale.isinf()] = 0
    expected = scale[:, None] * matrix * scale
    torch.testing.assert_close(dense(PATTERN, value) + own.diag(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [1, 8, 19, 32, 45])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_propagation_by_a_dense_matrix(loops, width, mean, n_layers):
    x, value, own, rows = random(9, width), random(9, seed=1), random(9, seed=2), torch.tensor([7, 0, 5])
    matrix, seeds, layers = dense(PATTERN, value) + own.diag(), (3, 1 << 40, 77 << 31 | 5)[:n_layers], [x]
    for seed in seeds:
        layers.append(matrix @ layers[-1] * kept(seed, 9, width, 0.25) / 0.75)
    expected = torch.stack(layers).mean(0) if mean else layers[-1]
    settings = {"mean": mean, "dropout": 0.25, "seeds": seeds}
    adjacency = adjacency_of(PATTERN)
    torch.testing.assert_close(propagate(adjacency, x, value, own, n_layers, **settings), expected, rtol=0, atol=1e-10)
    some = propagate(adjacency, x, value, own, n_layers, rows_K=rows, **settings)
    torch.testing.assert_close(some, expected[rows], rtol=0, atol=1e-10)


@pytest.mark.parametrize("width", [3, 11, 17])
def test_gradients(loops, width):
    adjacency = adjacency_of(PATTERN)
    x, beta, weight, own = (t.requires_grad_() for t in (random(9, width), random(width), random(9).abs(), random(9)))
    assert quick(lambda x, b: weigh(adjacency, x, b), (x, beta))
    assert quick(lambda x, b: weigh(adjacency, x, b, torch.tensor([1, 8])), (x, beta))
    for counted in (False, True):
        assert quick(lambda w, c=counted: normalise(adjacency, w, 0.3, counted=c), weight)
    seeds = (1 << 33, 5, 6)
    for settings in (
        {},
        {"mean": True},
        {"dropout": 0.3, "seeds": seeds},
        {"mean": True, "dropout": 0.3, "seeds": seeds},
    ):
        for rows in (None, torch.tensor([8, 2, 4])):
            assert quick(
                lambda x, v, o, s=settings, r=rows: propagate(adjacency, x, v, o, 3, rows_K=r, **s), (x, weight, own)
            )


def test_gradients_meet_weights_through_degrees():
    """The whole chain (2), (6), (7): a weight counts in the degree of its user, of its item, and as a value."""
    adjacency = adjacency_of(PATTERN)
    x, beta = random(9, 5).requires_grad_(), random(5).requires_grad_()

    def chain(x, beta):
        return propagate(adjacency, x, *normalise(adjacency, weigh(adjacency, x, beta)[0], 0.2), 3, mean=True)

    assert quick(chain, (x, beta))


def test_bits_do_not_depend_on_threads_nor_on_the_run(threads):
    adjacency = large()
    assert len(adjacency) * 32 > 1 << 17, "large enough for threads"

    def once(n):
        threads(n)
        x, beta = (random(*shape, dtype=torch.float32).requires_grad_() for shape in ((500, 32), (32,)))
        weight, distance = weigh(adjacency, x, beta)
        rows = torch.arange(0, 500, 3)
        value, own = normalise(adjacency, weight, 0.5)
        y = propagate(adjacency, x, value, own, 3, rows_K=rows, dropout=0.2, seeds=(1, 2, 3))
        (y.square().sum() + distance.sum()).backward()
        return weight.detach(), y.detach(), x.grad, beta.grad

    first = once(1)
    for n in (1, 2, 3, 2):
        assert all(torch.equal(a, b) for a, b in zip(first, once(n), strict=True)), n


def test_torch_computes_the_same_in_single_precision(monkeypatch):
    adjacency = large(60, 50)

    def once():
        x, beta = (random(*shape, dtype=torch.float32).requires_grad_() for shape in ((110, 32), (32,)))
        weight, distance = weigh(adjacency, x, beta, torch.tensor([0, 5, 7]))
        value, own = normalise(adjacency, weight, 0.5)
        y = propagate(adjacency, x, value, own, 3, dropout=0.2, seeds=(1, 2, 3))
        (y.square().sum() + distance.square().mean()).backward()
        return weight.detach(), y.detach(), x.grad, beta.grad

    ours = once()
    monkeypatch.setattr(module, "compiled", lambda x: False)
    for a, b in zip(ours, once(), strict=True):  # sums over edges cancel: what counts is the size of the largest
        torch.testing.assert_close(a, b, rtol=0, atol=3e-6 * float(b.abs().max()))


def test_dropout_keeps_a_share_of_its_own_for_every_seed_row_and_column():
    share, shape = 0.3, (4000, 32)
    one, two, three = (kept(seed, *shape, share).double() for seed in (1, 2, 1 | 1 << 32))
    deviation = math.sqrt(share * (1 - share) / math.prod(shape))
    for keep in (one, two, three):
        assert abs(keep.mean().item() - 0.7) < 4 * deviation
        assert abs(keep.mean(0) - 0.7).max() < 4 * deviation * math.sqrt(shape[1])
        assert abs(keep.mean(1).var().item() / (share * (1 - share) / shape[1]) - 1) < 0.15
    for a, b in ((one, two), (one, three), (two, three), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 4 / math.sqrt(a.numel())
    assert kept(9, *shape, 0.0).all()
    assert torch.equal(kept(1, 50, 32, share).double(), one[:50]), "an entry does not depend on how many there are"


def test_a_graph_without_edges_keeps_its_vectors(loops):
    adjacency = adjacency_of(torch.zeros(2, 3, dtype=torch.int64))
    x, beta = random(5, 4).requires_grad_(), random(4).requires_grad_()
    weight, distance = weigh(adjacency, x, beta)
    value, own = normalise(adjacency, weight, 0.5)
    y = propagate(adjacency, x, value, own, 2)
    torch.testing.assert_close(y, x)
    (y.sum() + distance.sum()).backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_the_compiler_is_loaded_when_it_is_needed():
    code = "import sys, macrorec.models.swgcn; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_cuda_equals_cpu():
    adjacency = large(60, 50)
    results = []
    for device in ("cpu", "cuda"):
        x, beta = (random(*s, dtype=torch.float32).to(device).requires_grad_() for s in ((110, 32), (32,)))
        on = adjacency.to(device)
        weight, distance = weigh(on, x, beta, torch.tensor([0, 5, 7], device=device))
        y = propagate(on, x, *normalise(on, weight, 0.5), 3, dropout=0.2, seeds=(1, 2, 3))
        (y.square().sum() + distance.square().mean()).backward()
        results.append([t.detach().cpu() for t in (weight, y, x.grad, beta.grad)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
