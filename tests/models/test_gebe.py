import math

import pytest
import torch

from macrorec.errors import ConfigError

ROWS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def times(a, b):
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def walks(train, decay, steps=60):
    """H W as the paper defines it: walks of every length by their Poisson weight, in plain loops."""
    transposed = [list(column) for column in zip(*train, strict=True)]
    top, vector = 0.0, [1.0 + n for n in range(len(train[0]))]
    for _ in range(500):  # power iteration for sigma_1
        vector = [row[0] for row in times(transposed, times(train, [[x] for x in vector]))]
        top = math.sqrt(sum(x * x for x in vector))
        vector = [x / top for x in vector]
    w = [[x / math.sqrt(top) for x in row] for row in train]
    term, total = w, [[0.0] * len(w[0]) for _ in w]
    for step in range(steps):
        weight = math.exp(-decay) * decay**step / math.factorial(step)
        total = [[a + weight * b for a, b in zip(*rows, strict=True)] for rows in zip(total, term, strict=True)]
        term = times(times(w, [list(column) for column in zip(*w, strict=True)]), term)
    return torch.tensor(total)


def scores(model):
    return model.score_all(torch.arange(model.n_users))


@pytest.mark.parametrize("decay", [0.0, 1.0, 4.0])
def test_all_vectors_give_the_sum_over_walks(drawn, solved, decay):
    model = solved("gebe", drawn(ROWS), dim=4, decay=decay)
    torch.testing.assert_close(scores(model), walks(ROWS, decay), rtol=1e-4, atol=1e-6)


def test_two_components_by_hand(drawn, solved):
    # Users a, b with items 0, 1: sigma 2, vectors (1, 1) / sqrt 2. User c with item 2: sigma 1, so s = 1 / 2.
    model = solved("gebe", drawn([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), dim=2, decay=1.0)
    lone = math.exp(0.25 - 1) / 2
    torch.testing.assert_close(scores(model), torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, lone]]))
    users_UD, items_ID = model.encode()
    root = math.sqrt(0.5)
    torch.testing.assert_close(users_UD[:, 0].abs(), torch.tensor([root, root, 0]))
    torch.testing.assert_close(users_UD[2, 1].abs(), torch.tensor(math.exp(-0.375)))
    torch.testing.assert_close(items_ID[2, 1].abs(), torch.tensor(math.exp(-0.375) / 2))


def test_few_vectors_keep_the_long_waves(drawn, solved):
    # The largest singular value belongs to the three users in one component: one vector sees nothing of user 3.
    model = solved("gebe", drawn(ROWS), dim=1)
    assert model.encode()[0].shape == (5, 1)
    whole = scores(solved("gebe", drawn(ROWS), dim=4))
    value = scores(model)
    assert value[3].abs().max() < 1e-6 < whole[3, 3]
    dense = torch.linalg.svd(torch.tensor(ROWS, dtype=torch.float64))
    torch.testing.assert_close(value.double(), torch.outer(dense.U[:, 0], dense.Vh[0]), rtol=1e-5, atol=1e-6)


def test_normalized_edges_weigh_by_the_degrees_of_their_ends(drawn, solved):
    people, things = [sum(row) for row in ROWS], [sum(column) for column in zip(*ROWS, strict=True)]
    weighed = [[x / math.sqrt(people[u] * things[i] or 1) for i, x in enumerate(row)] for u, row in enumerate(ROWS)]
    model = solved("gebe", drawn(ROWS), dim=4, decay=1.0, normalized=True)
    torch.testing.assert_close(scores(model), walks(weighed, 1.0), rtol=1e-4, atol=1e-6)


def test_the_union_is_one_graph_of_all_pairs(drawn, solved):
    views, purchases = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    either = [[max(x, y) for x, y in zip(*rows, strict=True)] for rows in zip(views, purchases, strict=True)]
    model = solved("gebe", drawn(views, purchases), dim=3, graph="union")
    torch.testing.assert_close(scores(model), walks(either, 1.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_train_user_folds_in_as_itself(drawn, solved, history, normalized):
    model = solved("gebe", drawn(ROWS), dim=3, decay=2.0, normalized=normalized)
    torch.testing.assert_close(model.fold_in_vectors(history(ROWS)), model.users_UD, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.fold_in(history(ROWS)), scores(model), rtol=1e-4, atol=1e-6)


def test_legal_settings(drawn, solved):
    with pytest.raises(ConfigError, match="decay >= 0; got 128 and -1"):
        solved("gebe", drawn(ROWS), decay=-1.0)
    with pytest.raises(ConfigError, match="dim >= 1"):
        solved("gebe", drawn(ROWS), dim=0)
