import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from macrorec.ops import spmm as module
from macrorec.ops.spmm import SparseMatrix, spmm, spmm_rows


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sparse(n_rows, n_cols, share, seed=0, dtype=torch.float64):
    """A random matrix, dense and sparse; some of its rows and columns are empty, the rest has ``share`` of entries."""
    dense = random(n_rows, n_cols, seed=seed, dtype=dtype)
    dense[random(n_rows, n_cols, seed=seed + 1).abs() > share] = 0
    dense[1::5] = 0
    dense[:, ::7] = 0
    row, col = dense.nonzero(as_tuple=True)
    return dense, SparseMatrix(row, col, dense[row, col], (n_rows, n_cols))


def product_by_loops(dense, x):
    y = [[0.0] * x.shape[1] for _ in range(dense.shape[0])]
    for m in range(dense.shape[0]):
        for n in range(dense.shape[1]):
            for d in range(x.shape[1]):
                y[m][d] += dense[m, n].item() * x[n, d].item()
    return torch.tensor(y, dtype=x.dtype).view(len(dense), x.shape[1])


@pytest.fixture
def threads():
    """Sets the number of threads; puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize(("n_rows", "n_cols", "share"), [(11, 9, 0.6), (9, 13, 3.0), (4, 1, 3.0), (6, 6, 0.0)])
def test_product_and_transposed_product_by_loops(n_rows, n_cols, share, width):
    dense, matrix = sparse(n_rows, n_cols, share)
    x, y = random(n_cols, width), random(n_rows, width)
    torch.testing.assert_close(spmm(matrix, x), product_by_loops(dense, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(spmm(matrix, y, transpose=True), product_by_loops(dense.T, y), rtol=0, atol=1e-12)


def test_entries_come_in_any_order_and_those_of_one_place_add_up():
    matrix = SparseMatrix(torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0]), torch.tensor([2.0, 5.0, 3.0]), (2, 2))
    assert torch.equal(spmm(matrix, torch.tensor([[1.0], [10.0]])), torch.tensor([[50.0], [5.0]]))


def test_gradients_of_vectors_and_weights():
    _, matrix = sparse(7, 6, 0.8)
    weight = random(len(matrix), seed=4).requires_grad_()
    x, y = random(6, 3, seed=5).requires_grad_(), random(7, 3, seed=6).requires_grad_()
    assert gradcheck(lambda x: spmm(matrix, x), x)
    assert gradcheck(lambda y: spmm(matrix, y, transpose=True), y)
    assert gradcheck(lambda x, w: spmm(matrix, x, w), (x, weight))
    assert gradcheck(lambda y, w: spmm(matrix, y, w, transpose=True), (y, weight))


def test_weights_stand_in_the_order_of_entries_on_either_side():
    dense, matrix = sparse(7, 6, 0.8)
    row, col = dense.nonzero(as_tuple=True)
    weight, other = random(len(matrix), seed=4).requires_grad_(), torch.zeros_like(dense)
    other[row, col] = weight.detach()
    x, y = random(6, 3, seed=5), random(7, 3, seed=6)
    torch.testing.assert_close(spmm(matrix, x, weight), other @ x, rtol=0, atol=1e-12)
    back = spmm(matrix, y, weight, transpose=True)
    torch.testing.assert_close(back, other.T @ y, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(back, weight, x)
    torch.testing.assert_close(gradient, (y @ x.T)[row, col], rtol=0, atol=1e-12)


def test_weights_of_a_symmetric_matrix_need_not_be_symmetric():
    pattern = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 0, 1]])
    row, col = pattern.nonzero(as_tuple=True)
    matrix = SparseMatrix(row, col, torch.ones(5), (3, 3))
    weight, other = torch.arange(1.0, 6.0), torch.zeros(3, 3)
    other[row, col] = weight
    assert matrix.symmetric
    assert torch.equal(spmm(matrix, torch.eye(3), weight), other)
    assert torch.equal(spmm(matrix, torch.eye(3), weight, transpose=True), other.T)


def test_a_symmetric_matrix_keeps_one_side_and_nothing_is_saved():
    dense, matrix = sparse(8, 8, 0.8)
    assert not matrix.symmetric
    row, col = (dense + dense.T).nonzero(as_tuple=True)
    both = SparseMatrix(row, col, (dense + dense.T)[row, col], (8, 8))
    assert both.symmetric
    assert {name for name, _ in both.named_buffers()} == {"start_M", "col_E", "value_E", "order_E"}
    assert not matrix.state_dict()
    assert matrix.float().value_E.dtype == torch.float32


def test_a_matrix_whose_pattern_alone_is_symmetric_keeps_both_sides():
    dense = torch.tensor([[0.0, 1.0, 1.0], [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    row, col = dense.nonzero(as_tuple=True)
    matrix = SparseMatrix(row, col, dense[row, col], (3, 3))
    assert not matrix.symmetric
    assert torch.equal(spmm(matrix, torch.eye(3), transpose=True), dense.T)


@pytest.mark.parametrize("weighted", [False, True])
def test_bits_do_not_depend_on_threads_nor_on_the_run(threads, weighted):
    _, matrix = sparse(500, 400, 0.5, dtype=torch.float32)
    assert len(matrix) * 16 > 1 << 17, "large enough for threads"

    def once(n):
        threads(n)
        x = random(400, 16, dtype=torch.float32).requires_grad_()
        weight = random(len(matrix), dtype=torch.float32).requires_grad_() if weighted else None
        y = spmm(matrix, x, weight)
        y.square().sum().backward()
        return y.detach(), x.grad, *([weight.grad] if weighted else [])

    first = once(1)
    for n in (1, 2, 3, 2):
        assert all(torch.equal(a, b) for a, b in zip(first, once(n), strict=True)), n


def test_without_kernels_torch_computes_the_same(monkeypatch):
    _, matrix = sparse(9, 8, 0.8)
    weight, x, y = (random(n, *d, seed=n) for n, d in ((len(matrix), ()), (8, (3,)), (9, (3,))))

    def everything():
        leaves = [t.clone().requires_grad_() for t in (x, y, weight)]
        out = spmm(matrix, leaves[0], leaves[2]), spmm(matrix, leaves[1], transpose=True)
        (
            out[0].sum() + out[1].square().sum() + (spmm(matrix, leaves[1], leaves[2], transpose=True) ** 3).sum()
        ).backward()
        return *out, *(leaf.grad for leaf in leaves), module.product(matrix.side(transpose=False), x, y)

    ours = everything()
    monkeypatch.setattr(module, "compiled", lambda x: False)
    for a, b in zip(ours, everything(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    _, matrix = sparse(50, 40, 0.5, dtype=torch.float32)
    x, weight = random(40, 8, dtype=torch.float32), random(len(matrix), dtype=torch.float32)
    expected = spmm(matrix, x, weight)
    x, weight = (t.cuda().requires_grad_() for t in (x, weight))
    y = spmm(matrix.cuda(), x, weight)
    y.sum().backward()
    torch.testing.assert_close(y.cpu(), expected)
    assert x.grad.isfinite().all()
    assert weight.grad.isfinite().all()


def test_places_outside_the_matrix_and_vectors_of_another_length_are_faults_of_ours():
    with pytest.raises(AssertionError, match="inside"):
        SparseMatrix(torch.tensor([0]), torch.tensor([3]), torch.ones(1), (2, 3))
    _, matrix = sparse(4, 3, 0.9)
    with pytest.raises(AssertionError):
        spmm(matrix, random(4, 2))
    with pytest.raises(AssertionError, match="one weight per entry"):
        spmm(matrix, random(3, 2), torch.ones(len(matrix) + 1, dtype=torch.float64))


def test_the_compiler_is_loaded_when_it_is_needed():
    code = "import sys, macrorec.ops.layers; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("by", ["kernels", "torch"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_rows_of_a_product_are_rows_of_the_whole_product(transpose, by, monkeypatch):
    _, matrix = sparse(11, 7, 0.9)
    x = random(11 if transpose else 7, 5, seed=5)
    rows = torch.tensor([6, 0, 3, 1] if transpose else [9, 0, 10, 6, 1, 3])
    weight = random(len(rows), 5, seed=6)
    ends = []
    for product in (lambda x: spmm(matrix, x, transpose=transpose)[rows], None):
        if product is None:
            if by == "torch":
                monkeypatch.setattr(module, "compiled", lambda x: False)
            product = partial(spmm_rows, matrix, rows_K=rows, transpose=transpose)
        own = x.clone().requires_grad_()
        some = product(own)
        (some * weight).sum().backward()
        ends.append((some.detach(), own.grad))
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-12)
