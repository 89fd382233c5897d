import pytest
import torch

from macrorec.ops.inner import inner_products
from macrorec.ops.spmm import SparseMatrix

ROW, COL = [2, 0, 0, 3, 2], [1, 3, 0, 2, 4]  # row 1 is empty; entries in no order


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(4, 3, generator=generator, dtype=dtype).requires_grad_()
    right = torch.randn(5, 3, generator=generator, dtype=dtype).requires_grad_()
    return SparseMatrix(torch.tensor(ROW), torch.tensor(COL), torch.ones(5), (4, 5)), left, right


@pytest.mark.parametrize("kernels", [True, False])
def test_entries_by_row_then_column_and_gradients(monkeypatch, kernels):
    if not kernels:
        monkeypatch.setattr("macrorec.ops.inner.compiled", lambda x: False)
        monkeypatch.setattr("macrorec.ops.inner._AT_ONCE", 2)
    matrix, left, right = case()
    weight = torch.tensor([0.3, -1.0, 2.0, 0.7, 1.1], dtype=torch.float64)
    got = inner_products(matrix, left, right)
    pairs = sorted(zip(ROW, COL, strict=True))
    expected = torch.stack([(left[m] * right[n]).sum() for m, n in pairs])
    torch.testing.assert_close(got, expected)
    (weight * got.square()).sum().backward()
    mine = left.grad.clone(), right.grad.clone()
    left.grad = right.grad = None
    (weight * expected.square()).sum().backward()
    torch.testing.assert_close(mine, (left.grad, right.grad))


def test_gradients_by_finite_differences():
    matrix, left, right = case()
    torch.autograd.gradcheck(lambda a, b: inner_products(matrix, a, b), (left, right))


def test_no_entries():
    none = torch.zeros(0, dtype=torch.int64)
    matrix = SparseMatrix(none, none, torch.zeros(0), (4, 5))
    _, left, right = case()
    got = inner_products(matrix, left, right)
    assert got.shape == (0,)
    got.sum().backward()
    assert not left.grad.any() and not right.grad.any()
