import pytest
import torch

from macrorec.errors import ConfigError

ROWS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
# Users have 2, 3, 2 and 0 edges, items 2, 3, 2 and 0.


@pytest.mark.parametrize(
    ("smoothing", "u", "v"), [(0.0, [2, 3, 2, 0], [2, 3, 2, 0]), (0.5, [2.5, 3.5, 2.5, 0.5], None)]
)
def test_products_of_degrees(drawn, solved, smoothing, u, v):
    model = solved("attachment", drawn(ROWS), smoothing=smoothing)
    expected = torch.tensor([[a * b for b in v or u] for a in u], dtype=torch.float32)
    torch.testing.assert_close(model.score_all(torch.arange(4)), expected)


def test_a_new_user_counts_its_items(drawn, solved, history):
    model = solved("attachment", drawn(ROWS))
    got = model.fold_in(history([[1, 0, 0, 1], [0, 0, 0, 0]]))
    torch.testing.assert_close(got, torch.tensor([[9.0, 12, 9, 3], [3, 4, 3, 1]]))


def test_newer_edges_count_at_once(drawn, solved):
    model = solved("attachment", drawn([[1, 0], [0, 0]]))
    model.refresh(drawn([[1, 1], [0, 1]]))
    torch.testing.assert_close(model.score_all(torch.arange(2)), torch.tensor([[6.0, 9], [4, 6]]))


def test_legal_settings(drawn, solved):
    with pytest.raises(ConfigError, match="smoothing >= 0; got -1"):
        solved("attachment", drawn(ROWS), smoothing=-1.0)
