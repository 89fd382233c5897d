import math

import pytest
import torch

from macrorec.errors import ConfigError

ROWS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]]
USERS = torch.arange(len(ROWS))


def slow_scores(rows, k, shrinkage):
    n = len(rows[0])
    owners = [{u for u, row in enumerate(rows) if row[i]} for i in range(n)]
    scores = [[0.0] * n for _ in rows]
    for i in range(n):
        similarity = {}
        for h in range(n):
            overlap = len(owners[h] & owners[i])
            if h != i and overlap:
                similarity[h] = overlap / (math.sqrt(len(owners[h]) * len(owners[i])) + shrinkage)
        nearest = sorted(similarity, key=lambda h: (-similarity[h], h))[:k]
        for u, row in enumerate(rows):
            scores[u][i] = sum(similarity[h] for h in nearest if row[h])
    return torch.tensor(scores)


def test_by_hand(drawn, solved):
    # d = 2 3 2 0; overlaps 01: 2, 02: 1, 12: 2; so sim(0, 1) = 2 / sqrt 6, sim(0, 2) = 1 / 2, sim(1, 2) = 2 / sqrt 6.
    s = 2 / math.sqrt(6)
    model = solved("itemknn", drawn(ROWS), k=100)
    expected = [[s, s, 0.5 + s, 0], [s + 0.5, 2 * s, 0.5 + s, 0], [s + 0.5, s, s, 0]]
    torch.testing.assert_close(model.score_all(USERS), torch.tensor(expected))


@pytest.mark.parametrize(("k", "shrinkage"), [(1, 0.0), (2, 0.0), (1, 3.0), (9, 1.5)])
def test_equals_the_definition(drawn, solved, k, shrinkage):
    rows = [*ROWS, [1, 0, 0, 1], [0, 0, 1, 1]]
    model = solved("itemknn", drawn(rows), k=k, shrinkage=shrinkage)
    torch.testing.assert_close(model.score_all(torch.arange(5)), slow_scores(rows, k, shrinkage))


def test_ties_go_to_the_item_with_the_lower_number(drawn, solved):
    model = solved("itemknn", drawn([[1, 1, 1]]), k=1)
    items = torch.arange(3)
    assert model.similar(items, items).tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_similar_answers_any_block(drawn, solved):
    model = solved("itemknn", drawn(ROWS), k=2)
    items = torch.arange(4)
    whole = model.similar(items, items)
    rows, columns = torch.tensor([2, 0, 2]), torch.tensor([1, 3, 1, 0])
    assert torch.equal(model.similar(rows, columns), whole[rows][:, columns])


def test_legal_settings(drawn, solved):
    with pytest.raises(ConfigError, match="k >= 1 and shrinkage >= 0; got k=0"):
        solved("itemknn", drawn(ROWS), k=0)
