import pytest
import torch

from macrorec.ops.rows import check_numbers, check_starts, rows_there_and_back, rows_times, rows_times_by_torch


def csr(dense):
    start = torch.zeros(len(dense) + 1, dtype=torch.int64)
    start[1:] = (dense != 0).sum(1).cumsum(0)
    return start, dense.nonzero()[:, 1], dense[dense != 0]


def sparse_random(n_rows, n_columns, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n_rows, n_columns, generator=generator) + 0.1
    return values * (torch.rand(n_rows, n_columns, generator=generator) < 0.3)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_rows_times_is_the_dense_product():
    x, a = sparse_random(50, 7, 0), sparse_random(7, 9, 1)
    out = rows_times(*csr(x), *csr(a), torch.ones(50, 9))
    torch.testing.assert_close(out, 1 + x @ a)


def test_missing_weights_and_values_are_ones():
    x, a = (sparse_random(5, 7, 0) > 0).float(), (sparse_random(7, 9, 1) > 0).float()
    (start_B, row_P, _), (start_R, column_E, _) = csr(x), csr(a)
    assert torch.equal(rows_times(start_B, row_P, None, start_R, column_E, None, torch.zeros(5, 9)), x @ a)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_torch_says_the_same():
    x, a = sparse_random(50, 7, 0), sparse_random(7, 9, 1)
    out = rows_times_by_torch(*csr(x), *csr(a), torch.ones(50, 9))
    torch.testing.assert_close(out, rows_times(*csr(x), *csr(a), torch.ones(50, 9)))


@pytest.mark.usefixtures("two_threads")
def test_there_and_back_is_the_dense_product():
    x, a = sparse_random(50, 7, 0), sparse_random(6, 9, 1)
    pattern = (sparse_random(7, 6, 2) > 0).float()
    scale = torch.rand(6, generator=torch.Generator().manual_seed(3))
    out = rows_there_and_back(*csr(x), *csr(pattern)[:2], scale, *csr(a), torch.ones(50, 9))
    torch.testing.assert_close(out, 1 + x @ pattern @ torch.diag(scale) @ a)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    x, a, pattern = sparse_random(50, 7, 0), sparse_random(6, 9, 1), (sparse_random(7, 6, 2) > 0).float()
    scale = torch.ones(6)
    arguments = (*csr(x), *csr(pattern)[:2], scale, *csr(a), torch.ones(50, 9))
    on_gpu = rows_there_and_back(*(t.cuda() for t in arguments))
    torch.testing.assert_close(on_gpu.cpu(), rows_there_and_back(*arguments))


@pytest.mark.parametrize("numbers", [[0, 3], [-1, 0]])
def test_numbers_outside_are_refused(numbers):
    check_numbers(torch.tensor([0, 2]), 3)
    with pytest.raises(RuntimeError, match="outside 0 : 3"):
        check_numbers(torch.tensor(numbers), 3)


@pytest.mark.parametrize("start", [[1, 2, 4], [0, 2, 3], [0, 5, 4]])
def test_row_pointers_that_do_not_fit_are_refused(start):
    check_starts(torch.tensor([0, 2, 4]), 4)
    with pytest.raises(RuntimeError, match="do not divide 4 entries"):
        check_starts(torch.tensor(start), 4)
