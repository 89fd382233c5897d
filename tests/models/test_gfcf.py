import math

import pytest
import torch

from macrorec.errors import ConfigError

ROWS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def dense_scores(train, rows, n_vectors, alpha):
    """The paper's formula, written with dense matrices."""
    r = torch.tensor(train, dtype=torch.float64)

    def power(degrees, p):
        return torch.diag(torch.tensor([d**p if d else 0.0 for d in degrees.tolist()], dtype=torch.float64))

    degree_U, degree_I = r.sum(1), r.sum(0)
    normalised = power(degree_U, -0.5) @ r @ power(degree_I, -0.5)
    v = torch.linalg.svd(normalised, full_matrices=False).Vh[:n_vectors].T
    ideal = power(degree_I, -0.5) @ v @ v.T @ power(degree_I, 0.5)
    return torch.tensor(rows, dtype=torch.float64) @ (normalised.T @ normalised + alpha * ideal)


def test_linear_filter_by_hand(drawn, solved):
    # Users a {0, 1} and b {1}: d_u = 2 1, d_i = 1 2. R~^T R~ = [[1/2, 1/(2 sqrt 2)], [1/(2 sqrt 2), 1/4 + 1/2]].
    model = solved("gfcf", drawn([[1, 1], [0, 1]]), n_vectors=0)
    s = 1 / (2 * math.sqrt(2))
    expected = torch.tensor([[0.5 + s, s + 0.75], [s, 0.75]])
    torch.testing.assert_close(model.score_all(torch.tensor([0, 1])), expected)


# Two singular values are 1, one per component; past those, all are distinct.
@pytest.mark.parametrize(("n_vectors", "alpha"), [(0, 0.3), (2, 0.3), (3, 1.7), (256, 0.3)])
def test_equals_the_dense_formula(drawn, solved, history, n_vectors, alpha):
    model = solved("gfcf", drawn(ROWS), n_vectors=n_vectors, alpha=alpha)
    got = model.score_all(torch.arange(len(ROWS))).double()
    torch.testing.assert_close(got, dense_scores(ROWS, ROWS, n_vectors, alpha), rtol=1e-5, atol=1e-6)
    new = [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    got = model.fold_in(history(new)).double()
    torch.testing.assert_close(got, dense_scores(ROWS, new, n_vectors, alpha), rtol=1e-5, atol=1e-6)


def test_similar_answers_any_block(drawn, solved):
    model = solved("gfcf", drawn(ROWS), n_vectors=2, alpha=0.3)
    whole = dense_scores(ROWS, torch.eye(4).tolist(), 2, 0.3)
    for rows, columns in (([2, 0], [1, 3, 0]), ([3, 1, 0, 1], [2]), ([0, 1, 2, 3], [0, 1, 2, 3])):
        got = model.similar(torch.tensor(rows), torch.tensor(columns)).double()
        torch.testing.assert_close(got, whole[rows][:, columns], rtol=1e-5, atol=1e-6)


def test_legal_settings(drawn, solved):
    with pytest.raises(ConfigError, match="alpha >= 0; got 256 and -1"):
        solved("gfcf", drawn(ROWS), alpha=-1.0)
