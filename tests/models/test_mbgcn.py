import math

import pytest
import torch
from tests.models.slopes import assert_gradients

from macrorec.api import PairBatch
from macrorec.errors import ConfigError
from macrorec.models.mbgcn import MODEL

VIEWS = [[1, 1, 0], [0, 1, 1], [0, 0, 0]]  # user 2 has no view
BUYS = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]  # item 2 is never bought
DIM = 2


@pytest.fixture
def graph(drawn):
    """Three users, three items, views and purchases."""
    return drawn(VIEWS, BUYS)


def model_of(graph, seed=0, **settings):
    still = {"dim": DIM, "init_std": 1.0, "node_dropout": 0.0, "message_dropout": 0.0}
    model = MODEL.from_graph(MODEL.Config(**(still | settings)), graph, torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():  # unequal behaviours
        model.log_weights_R.normal_(generator=torch.Generator().manual_seed(7))
    return model


def mean(vectors):
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)] if vectors else [0.0] * DIM


def times(vector, matrix):
    return [sum(x * row[d] for x, row in zip(vector, matrix, strict=True)) for d in range(len(matrix[0]))]


def dot(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def score_by_loops(model, drawings, u, i):
    """The score of the docstring, term by term, neighbour by neighbour."""
    p, q = model.users_UD.tolist(), model.items_ID.tolist()
    w, big = model.log_weights_R.exp().tolist(), model.weight_DD.tolist()
    items, users, kinds = range(3), range(3), range(len(drawings))

    def of_user(t, v):
        return [j for j in items if drawings[t][v][j]]

    def relevance(t, j):
        others = [q[k] for v in users if drawings[t][v][j] for k in of_user(t, v) if k != j]
        return times(mean(others), model.relevance_RDD[t].tolist())

    total = sum(w[t] * len(of_user(t, u)) for t in kinds)
    near_u = [0.0] * DIM
    for t in kinds:
        share = w[t] * len(of_user(t, u)) / total if total else 0.0
        near_u = [x + share * y for x, y in zip(near_u, mean([q[j] for j in of_user(t, u)]), strict=True)]
    near_i = mean([p[v] for v in users if any(drawings[t][v][i] for t in kinds)])
    score = dot(p[u] + times(near_u, big), q[i] + times(near_i, big))
    for t in kinds:
        known = [q[j] + relevance(t, j) for j in of_user(t, u)]
        x = times(mean(known) if known else [0.0] * 2 * DIM, model.match_RYY[t].tolist())
        score += model.config.relevance * dot(x, q[i] + relevance(t, i)) / len(drawings)
    return score


def losses_by_loops(model, drawings, users, items, negatives):
    p, q = model.users_UD.tolist(), model.items_ID.tolist()
    bpr = l2 = 0.0
    for u, i, drawn in zip(users, items, negatives, strict=True):
        l2 += dot(p[u], p[u]) + dot(q[i], q[i])
        for j in drawn:
            difference = score_by_loops(model, drawings, u, i) - score_by_loops(model, drawings, u, j)
            bpr += math.log1p(math.exp(-difference)) / len(users) / len(drawn)
            l2 += dot(q[j], q[j])
    return {"bpr": bpr, "l2": model.config.l2 * l2 / 2 / len(users)}


def batch_of(users, items, negatives, seed=3):
    return PairBatch(*map(torch.tensor, (users, items, negatives)), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "drawings",
    [
        [BUYS],
        [VIEWS, BUYS],
        [[[0] * 3] * 3, BUYS],
        [VIEWS, BUYS, [[1] * 3] * 3, [[0, 0, 1]] * 3, BUYS],
    ],
    ids=["one behaviour", "two", "an empty one", "five"],
)
def test_scores_equal_the_literal_sum(drawn, drawings):
    model = model_of(drawn(*drawings), relevance=0.7)
    got = model.score_all(torch.arange(3))
    for u in range(3):
        for i in range(3):
            assert got[u, i].item() == pytest.approx(score_by_loops(model, drawings, u, i), abs=1e-7), (u, i)


@pytest.mark.parametrize("negatives", [[[2], [0], [2], [0]], [[2, 2], [0, 2], [2, 0], [0, 0]]])
def test_losses_and_gradients_equal_the_literal_loss(graph, negatives):
    model = model_of(graph, l2=0.3, n_negatives=len(negatives[0]))
    users, items = [0, 1, 0, 2], [0, 1, 1, 1]
    terms = model.losses(batch_of(users, items, negatives))
    expected = losses_by_loops(model, [VIEWS, BUYS], users, items, negatives)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert_gradients(model, terms, lambda: losses_by_loops(model, [VIEWS, BUYS], users, items, negatives), abs=1e-6)


def test_shares_by_hand(graph):
    model = model_of(graph)
    with torch.no_grad():
        model.log_weights_R.copy_(torch.tensor([0.0, math.log(4)]))
    # users 0 and 1: two views and a purchase of weight 4; user 2: a purchase alone
    torch.testing.assert_close(model.shares().T.tolist(), [[1 / 3, 2 / 3], [1 / 3, 2 / 3], [0.0, 1.0]])


def test_node_dropout_silences_whole_nodes(graph):
    """Without the node's own vectors: what comes from items stands on kept ones, scaled up; alike for users."""
    model = model_of(graph, node_dropout=0.5, relevance=0.0)
    generator = torch.Generator().manual_seed(5)
    keep_i = 2 * (torch.rand(3, 1, generator=generator) >= 0.5).double()
    keep_u = 2 * (torch.rand(3, 1, generator=generator) >= 0.5).double()
    users, items = model.encode_rows(None, None, torch.Generator().manual_seed(5))
    views, buys = (torch.tensor(rows, dtype=torch.float64) for rows in (VIEWS, BUYS))
    share = model.shares()[..., None]
    mean_of = [rows @ (keep_i * model.items_ID) / rows.sum(1, keepdim=True).clamp(min=1) for rows in (views, buys)]
    expected = (share[0] * mean_of[0] + share[1] * mean_of[1]) @ model.weight_DD
    torch.testing.assert_close(users[:, DIM : 2 * DIM], expected)
    union = ((views + buys) > 0).double().T
    expected = union @ (keep_u * model.users_UD) / union.sum(1, keepdim=True).clamp(min=1) @ model.weight_DD
    torch.testing.assert_close(items[:, DIM : 2 * DIM], expected)
    torch.testing.assert_close(users[:, :DIM], model.users_UD.detach(), check_dtype=False)
    loud = model_of(graph, node_dropout=0.5, relevance=1.0)
    users, _ = loud.encode_rows(None, None, torch.Generator().manual_seed(5))
    sent = keep_i * loud.items_ID
    for t, rows in enumerate((views, buys)):
        pairs = rows.T @ rows * (1 - torch.eye(3))
        relevant = keep_i * (pairs @ sent / pairs.sum(1, keepdim=True).clamp(min=1))
        means = [rows @ x / rows.sum(1, keepdim=True).clamp(min=1) for x in (sent, relevant)]
        expected = torch.cat([means[0], means[1] @ loud.relevance_RDD[t]], 1) @ loud.match_RYY[t] / 2
        torch.testing.assert_close(users[:, (2 + t) * DIM : (3 + t) * DIM], expected[:, DIM:])
    assert {0.0, 2.0} == set(torch.cat([keep_i, keep_u]).unique().tolist())


def test_dropout_is_drawn_from_the_batch_and_for_training_only(graph):
    for settings in ({"node_dropout": 0.5}, {"message_dropout": 0.5}):
        model = model_of(graph, **settings)
        values = [model.losses(batch_of([0], [0], [[2]], seed))["bpr"].item() for seed in (1, 1, 2, 3, 4)]
        assert values[0] == values[1]
        assert len(set(values)) > 1
        torch.testing.assert_close(model.encode(), model_of(graph).encode())
        still = model.eval().losses(batch_of([0], [0], [[2]]))["bpr"].item()
        assert still == pytest.approx(model_of(graph).losses(batch_of([0], [0], [[2]]))["bpr"].item(), rel=1e-12)


def test_a_known_user_of_the_target_alone_folded_in_again_lacks_only_its_own_vector(graph, history):
    model = model_of(graph, relevance=0.7)
    with torch.no_grad():
        model.users_UD[2] = 0
        vectors = model.fold_in_vectors(history([BUYS[2], [0, 0, 0]]))
        torch.testing.assert_close(vectors[:1], model.encode()[0][2:])
    assert not vectors[1].any()


@pytest.mark.parametrize("name", ["node_dropout", "message_dropout"])
def test_settings_out_of_range(name):
    with pytest.raises(ConfigError, match=name):
        MODEL.Config(**{name: 1.0})
