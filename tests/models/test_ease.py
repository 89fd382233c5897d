import pytest
import torch

from macrorec.errors import ConfigError
from macrorec.models.ease import MODEL

ROWS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]


def ridge_without_own_column(rows, l2):
    """Each column of B from its own regression on the other columns: what the closed form solves for all at once."""
    x = torch.tensor(rows, dtype=torch.float64)
    n = x.shape[1]
    weights = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        others = [h for h in range(n) if h != i]
        system = x[:, others].T @ x[:, others] + l2 * torch.eye(n - 1, dtype=torch.float64)
        weights[others, i] = torch.linalg.solve(system, x[:, others].T @ x[:, i])
    return weights


def test_by_hand(drawn, solved):
    # Two items, one user with both: each is explained by the other with 1 / (1 + l2).
    model = solved("ease", drawn([[1, 1]]), l2=3.0)
    torch.testing.assert_close(model.weight_II, torch.tensor([[0, 0.25], [0.25, 0]]))
    torch.testing.assert_close(model.score_all(torch.tensor([0])), torch.tensor([[0.25, 0.25]]))


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_equals_one_regression_per_item(drawn, solved, l2, precision):
    model = solved("ease", drawn(ROWS), l2=l2, precision=precision)
    expected = ridge_without_own_column(ROWS, l2)
    torch.testing.assert_close(model.weight_II.double(), expected, rtol=1e-5, atol=1e-6)
    scores = torch.tensor(ROWS, dtype=torch.float64) @ expected
    torch.testing.assert_close(model.score_all(torch.arange(5)).double(), scores, rtol=1e-5, atol=1e-6)


def test_an_item_does_not_speak_for_itself(drawn, solved):
    assert solved("ease", drawn(ROWS)).weight_II.diagonal().tolist() == [0, 0, 0, 0]


def test_memory_grows_with_the_square_of_the_catalogue(drawn):
    graph = drawn([[1] * 1000])
    assert MODEL.memory(MODEL.Config(), graph) >= 12 * 1000**2
    assert MODEL.memory(MODEL.Config(precision="float32"), graph) < MODEL.memory(MODEL.Config(), graph)


def test_legal_settings(drawn, solved):
    with pytest.raises(ConfigError, match="l2 > 0; got 0"):
        solved("ease", drawn(ROWS), l2=0)


def test_a_ridge_below_the_precision_is_one_line(drawn, solved):
    with pytest.raises(ConfigError, match=r'l2 = 1e-09 in torch.float32: raise l2, or set precision to "float64"'):
        solved("ease", drawn([[1, 1]] * 4), l2=1e-9, precision="float32")
