import math

import pytest
import torch

from macrorec.errors import ConfigError

ROWS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def similarity(a, b, shrinkage):
    overlap = sum(x * y for x, y in zip(a, b, strict=True))
    return overlap / (math.sqrt(sum(a) * sum(b)) + shrinkage) if overlap else 0.0


def slow_scores(rows, queries, k, shrinkage, same):
    scores = []
    for q, query in enumerate(queries):
        near = {v: similarity(query, row, shrinkage) for v, row in enumerate(rows) if not (same and v == q)}
        nearest = sorted((v for v in near if near[v]), key=lambda v: (-near[v], v))[:k]
        scores.append([sum(near[v] * rows[v][i] for v in nearest) for i in range(len(rows[0]))])
    return torch.tensor(scores, dtype=torch.float32)


def test_by_hand(drawn, solved):
    # sim(0, 1) = 2 / sqrt 6, sim(1, 2) = 1 / sqrt 6, sim(0, 2) = 0.
    a, b = 2 / math.sqrt(6), 1 / math.sqrt(6)
    model = solved("userknn", drawn(ROWS))
    expected = [[a, a, a, 0], [a, a, b, b], [b, b, b, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(model.score_all(torch.arange(4)), torch.tensor(expected))


@pytest.mark.parametrize(("k", "shrinkage"), [(1, 0.0), (2, 0.0), (1, 2.0), (9, 0.5)])
def test_equals_the_definition(drawn, solved, history, k, shrinkage):
    rows = [*ROWS, [1, 0, 0, 1]]
    model = solved("userknn", drawn(rows), k=k, shrinkage=shrinkage)
    torch.testing.assert_close(model.score_all(torch.arange(5)), slow_scores(rows, rows, k, shrinkage, same=True))
    new = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    torch.testing.assert_close(model.fold_in(history(new)), slow_scores(rows, new, k, shrinkage, same=False))


def test_pairs_equal_rows(drawn, solved):
    model = solved("userknn", drawn(ROWS))
    users, items = torch.tensor([1, 0, 1, 2]), torch.tensor([3, 2, 0, 0])
    assert torch.equal(model.score(users, items), model.score_all(users)[torch.arange(4), items])


def test_legal_settings(drawn, solved):
    with pytest.raises(ConfigError, match="shrinkage=-1"):
        solved("userknn", drawn(ROWS), shrinkage=-1.0)
