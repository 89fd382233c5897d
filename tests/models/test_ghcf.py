import itertools
import math

import pytest
import torch
from tests.contract.boards import checkerboard, scores
from tests.models.conftest import graph_from
from tests.models.slopes import assert_gradients

from macrorec.api import RowBatch
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import build
from macrorec.models.ghcf import MODEL
from macrorec.train.config import TrainConfig
from macrorec.train.sampling import sampler
from macrorec.train.trainer import train

# User 2 only viewed, item 2 was never bought; three users, three items.
VIEW = [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
CART = [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
BUY = [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
COEFFICIENTS = (0.2, 0.5, 0.3)
DIM = 2


def model_of(graph, seed=0, **settings):
    settings = {"dim": DIM, "n_layers": 2, "dropout": 0.0, "l2": 0.3, "negative_weight": 0.2} | settings
    return MODEL.from_graph(MODEL.Config(**settings), graph, torch.Generator().manual_seed(seed)).double()


def final_by_loops(behaviors, model, parameters):
    """Means over layers of node vectors and of relation vectors, in plain loops."""
    vectors, relations, node_weights, relation_weights = (value.tolist() for value in parameters)
    n_users, n_nodes, n_layers = len(behaviors[0]), len(vectors), len(node_weights)
    slope = model.config.slope
    node_layers, relation_layers = [vectors], [relations]
    for layer in range(n_layers):
        x, r = node_layers[-1], relation_layers[-1]
        new = [[0.0] * DIM for _ in range(n_nodes)]
        for k, rows in enumerate(behaviors):
            edges = [(u, n_users + i) for u, row in enumerate(rows) for i, there in enumerate(row) if there]
            degree = [sum(node in edge for edge in edges) for node in range(n_nodes)]
            for node in range(n_nodes):
                near = [a if b == node else b for a, b in edges if node in (a, b)]
                met = [
                    sum(x[other][d] / math.sqrt(degree[node] * degree[other]) for other in near) * r[k][d]
                    for d in range(DIM)
                ]
                for d in range(DIM):
                    h = sum(met[c] * node_weights[layer][c][d] for c in range(DIM))
                    new[node][d] += model.coefficients[k] * (h if h > 0 else slope * h)
        node_layers.append(new)
        relation_layers.append(
            [[sum(row[c] * relation_weights[layer][c][d] for c in range(DIM)) for d in range(DIM)] for row in r]
        )
    mean = [
        [[sum(layer[n][d] for layer in layers) / (n_layers + 1) for d in range(DIM)] for n in range(len(layers[0]))]
        for layers in (node_layers, relation_layers)
    ]
    return mean[0][:n_users], mean[0][n_users:], mean[1]


def losses_by_loops(behaviors, model, users, parameters):
    """Squared errors over all pairs, w for those that are no edge, less the number of edges; and the l2 term."""
    of_users, of_items, relations = final_by_loops(behaviors, model, parameters)
    fit = 0.0
    for k, rows in enumerate(behaviors):
        for u, i in itertools.product(users, range(len(of_items))):
            y = sum(of_users[u][d] * of_items[i][d] * relations[k][d] for d in range(DIM))
            edge = rows[u][i]
            error = (1 - y) ** 2 - 1 if edge else model.config.negative_weight * y**2
            fit += model.coefficients[k] * error
    squares = sum(x * x for u in users for x in of_users[u]) + sum(x * x for row in of_items for x in row)
    return {"whole_data": fit / len(users), "l2": model.config.l2 * squares / 2 / len(users)}


def parameters_of(model):
    named = dict(model.named_parameters())
    names = ("vectors_ND", "relations_RD", "node_weights_LDD", "relation_weights_LDD")
    assert set(named) == set(names)
    return [named[name] for name in names]


def batch_of(graph, users):
    for batch in sampler(MODEL.batches, graph, len(users), seed=0).epoch(0):
        rows = []
        for edges in graph.edges:
            own = [edges.item_E[edges.start_U[u] : edges.start_U[u + 1]] for u in users]
            start = torch.tensor([0, *itertools.accumulate(map(len, own))])
            rows.append((start, torch.cat(own)))
        return RowBatch(torch.tensor(users), *rows[-1], batch.generator, tuple(rows))
    raise AssertionError


@pytest.mark.parametrize("behaviors", [[BUY], [VIEW, BUY], [VIEW, CART, BUY], [VIEW, CART, [[0] * 3] * 3, VIEW, BUY]])
def test_scores_equal_the_literal_sum(behaviors):
    model = model_of(graph_from(*behaviors)).eval()
    users, items, relations = final_by_loops(behaviors, model, parameters_of(model))
    expected = [[sum(u[d] * i[d] * relations[-1][d] for d in range(DIM)) for i in items] for u in users]
    with torch.no_grad():
        got = model.score_all(torch.arange(3))
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("users", [[0, 1, 2], [2, 0], [1]])
def test_losses_and_gradients_equal_the_literal_loss(users):
    behaviors = [VIEW, CART, BUY]
    graph = graph_from(*behaviors)
    model = model_of(graph, coefficients=COEFFICIENTS)
    for parameter in parameters_of(model):  # away from the start, where scores are small
        parameter.data.mul_(1.5)
    terms = model.losses(batch_of(graph, users))

    def literal():
        return losses_by_loops(behaviors, model, users, parameters_of(model))

    assert {name: term.item() for name, term in terms.items()} == pytest.approx(literal(), rel=1e-6)
    assert_gradients(model, terms, literal, abs=1e-6)


def test_one_edge_by_hand():
    # One edge, one layer, all ones, slope unused: H = E r W = 2 per number, so means are 1.5; r: (1 + 2) / 2 = 1.5.
    model = model_of(graph_from([[1]]), n_layers=1, negative_weight=0.5)
    for parameter in parameters_of(model):
        parameter.data.fill_(1)
    y = 2 * 1.5**3
    assert model.eval().score(torch.tensor([0]), torch.tensor([0])).item() == pytest.approx(y)
    terms = model.losses(batch_of(graph_from([[1]]), [0]))
    assert terms["whole_data"].item() == pytest.approx(y**2 - 2 * y)
    assert terms["l2"].item() == pytest.approx(0.3 / 2 * 4 * 1.5**2)


def test_dropout_acts_in_training_alone_and_follows_the_batch():
    graph = graph_from(VIEW, CART, BUY)
    model = model_of(graph, dropout=0.5, dim=16)
    batch = batch_of(graph, [0, 1, 2])
    first, again = (batch_of(graph, [0, 1, 2]) for _ in range(2))
    assert torch.equal(model.losses(first)["whole_data"], model.losses(again)["whole_data"])
    dropped = model.losses(batch)["l2"]
    assert not torch.equal(dropped, model.eval().losses(batch_of(graph, [0, 1, 2]))["l2"])


def test_two_colours_are_learned_where_other_pairs_count(history):
    # The board's own budget is forty steps, and by default eight items of the other colour weigh eight hundredths.
    log, _ = checkerboard()
    graph = build(log)
    model = model_of(graph, dim=8, n_layers=2, l2=0.0, negative_weight=0.5).float()
    train(model, graph, TrainConfig(epochs=100, batch_size=8, lr=0.01), seed=0)
    value, apart = scores(model), torch.arange(16)[:, None] - torch.arange(16)
    assert value[(apart % 2 == 0) & (apart != 0)].min() > value[apart % 2 == 1].max() + 0.3
    with torch.no_grad():
        new = model.fold_in(history([[1, 0] * 3 + [0] * 10]))[0]
    assert new[6::2].min() > new[1::2].max()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"negative_weight": 0.0}, "0 < negative_weight <= 1"),
        ({"dropout": 1.0}, "dropout < 1"),
        ({"coefficients": (-1.0, 2.0)}, "coefficients of at least 0"),
        ({"coefficients": (0.5, 0.5)}, "2 coefficients for 3 behaviours"),
    ],
)
def test_wrong_settings_are_refused(wrong, match):
    with pytest.raises(ConfigError, match=match):
        model_of(graph_from(VIEW, CART, BUY), **wrong)
