import dataclasses
import math

import pytest
import torch
from tests.models.slopes import assert_gradients

from macrorec.api import PairBatch
from macrorec.data.log import Behavior
from macrorec.models.lightgcn import MODEL

ROWS = [[1, 1, 0], [0, 1, 0], [0, 1, 0]]  # user 2 has the degree of user 1; item 2 is isolated


def model_of(graph, /, seed=0, **settings):
    model = MODEL.from_graph(MODEL.Config(dim=3, **settings), graph, torch.Generator().manual_seed(seed))
    return model.double()


def layers_by_loops(rows, vectors, n_layers):
    """(3): e_u^(l+1) = sum_{i in N_u} e_i^(l) / (sqrt|N_u| sqrt|N_i|), and alike for items; all layers."""
    n_users, n_items = len(rows), len(rows[0])
    near = {("u", u): [("i", i) for i in range(n_items) if rows[u][i]] for u in range(n_users)}
    near |= {("i", i): [("u", u) for u in range(n_users) if rows[u][i]] for i in range(n_items)}
    layer = {key: vectors[n].tolist() for n, key in enumerate(near)}
    layers = [layer]
    for _ in range(n_layers):
        layer = {
            a: [
                sum(layers[-1][b][d] / math.sqrt(len(near[a])) / math.sqrt(len(near[b])) for b in near[a])
                for d in range(3)
            ]
            for a in near
        }
        layers.append(layer)
    return layers, near


def final_by_loops(rows, vectors, n_layers):
    """(4) with alpha = 1 / (L + 1): users, then items."""
    layers, near = layers_by_loops(rows, vectors, n_layers)
    mean = [[sum(layer[key][d] for layer in layers) / len(layers) for d in range(3)] for key in near]
    return mean[: len(rows)], mean[len(rows) :]


def losses_by_loops(rows, vectors, config, users, items, negatives):
    """(15) as in the authors' code: the mean of -ln sigmoid, and lambda / (2 B) of the batch's squared layer-0 rows."""
    final_u, final_i = final_by_loops(rows, vectors, config.n_layers)
    first, n_users = vectors.tolist(), len(rows)
    bpr = l2 = 0.0
    for u, i, drawn in zip(users, items, negatives, strict=True):
        l2 += sum(x * x for x in first[u] + first[n_users + i])
        for j in drawn:
            difference = sum(final_u[u][d] * (final_i[i][d] - final_i[j][d]) for d in range(3))
            bpr += math.log1p(math.exp(-difference)) / len(users) / len(drawn)
            l2 += sum(x * x for x in first[n_users + j])
    return {"bpr": bpr, "l2": config.l2 * l2 / 2 / len(users)}


def batch_of(users, items, negatives):
    return PairBatch(torch.tensor(users), torch.tensor(items), torch.tensor(negatives), torch.Generator())


def test_one_edge_by_hand(drawn):
    # A = [[0, 1], [1, 0]]: layers alternate between e_u and e_i, so the mean of layers 0..3 is (e_u + e_i) / 2.
    model = model_of(drawn([[1]]))
    users, items = model.encode()
    half = model.vectors_ND.mean(0, keepdim=True)
    torch.testing.assert_close(users, half)
    torch.testing.assert_close(items, half)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_encode_equals_the_literal_sum(drawn, n_layers):
    model = model_of(drawn(ROWS), n_layers=n_layers)
    users, items = final_by_loops(ROWS, model.vectors_ND.detach(), n_layers)
    got = [x.tolist() for x in model.encode()]
    assert got[0] == [pytest.approx(row, abs=1e-7) for row in users]
    assert got[1] == [pytest.approx(row, abs=1e-7) for row in items]


@pytest.mark.parametrize("negatives", [[[2], [0], [2], [0]], [[2, 2], [0, 2], [2, 0], [0, 0]]])
def test_losses_and_gradients_equal_the_literal_loss(drawn, negatives):
    model = model_of(drawn(ROWS), l2=0.3, n_negatives=len(negatives[0]))
    users, items = [0, 1, 0, 2], [0, 1, 1, 1]
    terms = model.losses(batch_of(users, items, negatives))

    def literal():
        return losses_by_loops(ROWS, model.vectors_ND.detach(), model.config, users, items, negatives)

    assert {name: term.item() for name, term in terms.items()} == pytest.approx(literal(), rel=1e-6)
    assert_gradients(model, terms, literal, abs=1e-7)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_new_user_gets_what_flows_from_the_frozen_layers_of_items(drawn, history, n_layers):
    model = model_of(drawn(ROWS), n_layers=n_layers)
    layers, near = layers_by_loops(ROWS, model.vectors_ND.detach(), n_layers)
    new = [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
    expected = []
    for row in new:
        own = [i for i in range(3) if row[i]]
        weight = {i: 1 / math.sqrt(len(own)) / math.sqrt(max(len(near["i", i]), 1)) for i in own}
        expected.append(
            [sum(weight[i] * layer["i", i][d] for layer in layers[:-1] for i in own) / (n_layers + 1) for d in range(3)]
        )
    got = model.fold_in_vectors(history(new)).tolist()
    assert got == [pytest.approx(row, abs=1e-7) for row in expected]


def test_a_known_user_folded_in_again_lacks_only_its_own_layer_0(drawn, history):
    # With e_u^(0) = 0, user 0's own propagation equals the fold-in of its items where no path returns: L = 1.
    model = model_of(drawn(ROWS), n_layers=1)
    with torch.no_grad():
        model.vectors_ND[0] = 0
    torch.testing.assert_close(model.fold_in_vectors(history([ROWS[0]])), model.encode()[0][:1])


def test_the_estimate_of_memory_covers_weights_gradient_and_moments(drawn):
    graph = drawn(ROWS)
    assert MODEL.memory(MODEL.Config(dim=64), graph) >= 4 * 4 * 6 * 64


def test_the_union_of_behaviours_is_one_graph(drawn):
    buys, views = drawn([[1, 0, 0], [0, 1, 0], [0, 1, 0]]), drawn([[1, 1, 0], [0, 0, 0], [0, 1, 0]])
    both = dataclasses.replace(buys, behaviors=(Behavior(name="view"), *buys.behaviors), edges=views.edges + buys.edges)
    expected = model_of(drawn(ROWS)).encode()
    torch.testing.assert_close(model_of(both, graph="union").encode(), expected)
    torch.testing.assert_close(model_of(both, graph="target").encode(), model_of(buys).encode())
