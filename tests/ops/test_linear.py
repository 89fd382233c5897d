import numpy as np
import pytest
import scipy.sparse as sp
import torch

from macrorec.ops.linear import cosine_neighbors, gram, inverse_, normalized, truncated_svd


def random_pattern(n_rows, n_columns, share, seed):
    rng = np.random.default_rng(seed)
    return sp.csr_matrix((rng.random((n_rows, n_columns)) < share).astype(np.float32))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("tile", [1, 4, 11, 512])
def test_the_inverse_by_tiles(monkeypatch, tile, dtype, close):
    monkeypatch.setattr("macrorec.ops.linear._TILE", tile)
    x = torch.randn(13, 11, generator=seeded(), dtype=torch.float64)
    matrix = x.T @ x + torch.eye(11, dtype=torch.float64)
    found = inverse_(matrix.clone().to(dtype))
    torch.testing.assert_close(found.double(), torch.linalg.inv(matrix), rtol=close, atol=close)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_inverse_is_as_accurate_as_that_of_lapack_where_the_condition_is_bad(dtype):
    """A gram matrix of condition 1e5, 700 columns in two tiles."""
    x = random_pattern(600, 700, 0.1, 5)
    matrix = gram(x, torch.float64)
    matrix.diagonal().add_(0.1)
    exact = torch.linalg.inv(matrix)
    lapack = torch.cholesky_inverse(torch.linalg.cholesky(matrix.to(dtype)))
    error, expected = (
        (found - exact).abs().max() / exact.abs().max() for found in (inverse_(matrix.clone().to(dtype)), lapack)
    )
    assert error < 4 * expected + 1e-13


def test_the_inverse_takes_no_memory_of_its_own():
    matrix = 2 * torch.eye(5, dtype=torch.float64)
    assert inverse_(matrix).data_ptr() == matrix.data_ptr()


def test_no_inverse_of_what_is_not_positive_definite():
    with pytest.raises(torch.linalg.LinAlgError):
        inverse_(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_gram_in_blocks(monkeypatch):
    monkeypatch.setattr("macrorec.ops.linear._BLOCK", 3)
    x = random_pattern(9, 8, 0.4, 1)
    assert torch.equal(gram(x, torch.float64), torch.from_numpy((x.T @ x).toarray()).double())


@pytest.mark.parametrize("dense", [0, 500])
@pytest.mark.parametrize("k", [1, 5, 12, 40])
def test_singular_vectors_are_those_of_the_dense_decomposition(monkeypatch, k, dense):
    monkeypatch.setattr("macrorec.ops.linear._DENSE", dense)
    matrix = normalized(random_pattern(40, 30, 0.2, 2))
    left, values, right = truncated_svd(matrix, k, seeded())
    p, s, qt = np.linalg.svd(matrix.toarray(), full_matrices=False)
    k = min(k, 30)
    assert left.shape == (40, k)
    assert right.shape == (30, k)
    np.testing.assert_allclose(values, s[:k], atol=1e-12)
    np.testing.assert_allclose(right @ right.T, qt[:k].T @ qt[:k], atol=1e-9)
    np.testing.assert_allclose(left @ torch.diag(values) @ right.T, p[:, :k] * s[:k] @ qt[:k], atol=1e-9)
    assert (right.gather(0, right.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_start_vector_moves_no_digit_that_matters(monkeypatch):
    monkeypatch.setattr("macrorec.ops.linear._DENSE", 0)
    matrix = normalized(random_pattern(60, 50, 0.2, 3))
    first, again, other = (truncated_svd(matrix, 6, seeded(seed))[2] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, other, rtol=0, atol=1e-9)


def test_normalized_keeps_empty_rows_and_columns():
    matrix = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=np.float32))
    expected = [[1 / 2, 1 / np.sqrt(2), 0], [0, 0, 0], [1 / np.sqrt(2), 0, 0]]
    np.testing.assert_allclose(normalized(matrix).toarray(), expected)


def test_neighbors_in_blocks_equal_a_loop(monkeypatch):
    monkeypatch.setattr("macrorec.ops.linear._BLOCK", 7)
    x = random_pattern(20, 15, 0.3, 4)
    dense = x.toarray()
    number_BK, similarity_BK = cosine_neighbors(x, x, 4, 1.0, same=True)
    for b in range(20):
        near = []
        for t in range(20):
            overlap = float(dense[b] @ dense[t])
            if t != b and overlap:
                near.append((-overlap / (np.sqrt(dense[b].sum() * dense[t].sum()) + 1.0), t))
        expected = (sorted(near) + [(0.0, b)] * 4)[:4]
        assert number_BK[b].tolist() == [t for _, t in expected]
        np.testing.assert_allclose(similarity_BK[b], [-s for s, _ in expected], rtol=1e-6)


def test_no_copy_of_a_repeated_singular_value_is_missed_in_a_small_matrix():
    """Forty components of one edge each: the value 1 forty times."""
    sparse = sp.random(60, 50, 0.05, random_state=0, data_rvs=np.ones, format="csr")
    matrix = normalized(sp.block_diag([*[np.ones((1, 1))] * 40, sparse], format="csr"))
    values = truncated_svd(matrix, 12, seeded())[1]
    np.testing.assert_allclose(values, np.ones(12), atol=1e-12)


def test_repeated_singular_values_give_equal_bits_for_equal_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight components of one edge beside a sparse one: the value 1 nine times, where ARPACK restarts at random."""
    monkeypatch.setattr("macrorec.ops.linear._DENSE", 0)
    sparse = sp.random(100, 100, 0.05, random_state=0, data_rvs=np.ones, format="csr")
    matrix = normalized(sp.block_diag([*[np.ones((1, 1))] * 8, sparse], format="csr"))
    first, again = (truncated_svd(matrix, 16, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert int((first[1] > 1 - 1e-9).sum()) == 9
    left, values, right = (part.numpy() for part in first)
    assert np.allclose(matrix @ right, left * values)
