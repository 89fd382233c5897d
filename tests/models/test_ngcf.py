import math

import pytest
import torch
from tests.models.slopes import assert_gradients

from macrorec.api import PairBatch
from macrorec.errors import ConfigError
from macrorec.models.ngcf import MODEL

VIEWS = [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
BUYS = [[1, 1, 0], [0, 1, 0], [0, 1, 0]]  # item 2 is isolated here
UNION = [[1, 1, 1], [0, 1, 0], [1, 1, 0]]
N_USERS, N_NODES, DIM = 3, 6, 2


@pytest.fixture
def graph(drawn):
    """Three users, three items, views and purchases."""
    return drawn(VIEWS, BUYS)


def model_of(graph, /, seed=0, **settings):
    config = MODEL.Config(**({"dim": DIM, "init_std": 1.0, "dropout": 0.0} | settings))
    model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():  # biases, too, take part
        for bias in (model.sum_bias_LD, model.product_bias_LD):
            bias.normal_(generator=torch.Generator().manual_seed(7))
    return model


def matrices_by_loops(rows, kind):
    """S of the first term and S' of the second, dense."""
    a = [[0.0] * N_NODES for _ in range(N_NODES)]
    for u in range(N_USERS):
        for i in range(3):
            a[u][N_USERS + i] = a[N_USERS + i][u] = float(rows[u][i])
    degree = [sum(row) for row in a]
    nodes = range(N_NODES)
    if kind == "released":
        both = [[(a[m][n] + (m == n)) / (degree[m] + 1) for n in nodes] for m in nodes]
        return both, both
    plain = [[a[m][n] / math.sqrt(degree[m] * degree[n]) if a[m][n] else 0.0 for n in nodes] for m in nodes]
    loops = [[plain[m][n] + (m == n) for n in nodes] for m in nodes]
    return (loops if kind == "text" else plain), plain


def final_by_loops(model, rows, scale=lambda number, node, d: 1.0):
    """e* of every node: (7) in loops, ``scale`` standing for message dropout."""
    config = model.config
    first, second = matrices_by_loops(rows, config.matrix)
    layer = model.vectors_ND.tolist()
    final = [list(vector) for vector in layer]
    for number in range(config.n_layers):
        parts = []
        for s, weight, bias, product in (
            (first, model.sum_LDD, model.sum_bias_LD, False),
            (second, model.product_LDD, model.product_bias_LD, True),
        ):
            part = []
            for m in range(N_NODES):
                near = [sum(s[m][n] * layer[n][c] for n in range(N_NODES)) for c in range(DIM)]
                if product:
                    near = [near[c] * layer[m][c] for c in range(DIM)]
                out = [
                    bias[number, d].item() + sum(near[c] * weight[number, c, d].item() for c in range(DIM))
                    for d in range(DIM)
                ]
                part.append([x if x > 0 else config.slope * x for x in out])
            parts.append(part)
        layer = [[(parts[0][m][d] + parts[1][m][d]) * scale(number, m, d) for d in range(DIM)] for m in range(N_NODES)]
        for m in range(N_NODES):
            length = math.sqrt(sum(x * x for x in layer[m])) or 1.0
            final[m] += [x / length for x in layer[m]]
    return final


def losses_by_loops(model, rows, users, items, negatives):
    """(11): the mean of -ln sigmoid over pairs; lambda / (2 B) of the batch's squared layer-0 rows."""
    final, first = final_by_loops(model, rows), model.vectors_ND.tolist()
    bpr = l2 = 0.0
    for u, i, drawn in zip(users, items, negatives, strict=True):
        l2 += sum(x * x for x in first[u] + first[N_USERS + i])
        for j in drawn:
            pair = zip(final[u], final[N_USERS + i], final[N_USERS + j], strict=True)
            difference = sum(a * (b - c) for a, b, c in pair)
            bpr += math.log1p(math.exp(-difference)) / len(users) / len(drawn)
            l2 += sum(x * x for x in first[N_USERS + j])
    return {"bpr": bpr, "l2": model.config.l2 * l2 / 2 / len(users)}


def batch_of(users, items, negatives, generator=None):
    tensors = map(torch.tensor, (users, items, negatives))
    return PairBatch(*tensors, generator or torch.Generator().manual_seed(3))


@pytest.mark.parametrize("matrix", ["plain", "text", "released"])
@pytest.mark.parametrize(("kind", "rows"), [("target", BUYS), ("union", UNION)])
def test_encode_equals_the_literal_sum(graph, matrix, kind, rows):
    model = model_of(graph, matrix=matrix, graph=kind)
    expected = final_by_loops(model, rows)
    users, items = model.encode()
    assert users.tolist() == [pytest.approx(row, abs=1e-6) for row in expected[:N_USERS]]
    assert items.tolist() == [pytest.approx(row, abs=1e-6) for row in expected[N_USERS:]]


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("negatives", [[[2], [0], [2], [0]], [[2, 2], [0, 2], [2, 0], [0, 0]]])
def test_losses_and_gradients_equal_the_literal_loss(graph, n_layers, negatives):
    model = model_of(graph, n_layers=n_layers, l2=0.3, matrix="text", graph="union", n_negatives=len(negatives[0]))
    users, items = [0, 1, 0, 2], [0, 1, 1, 1]
    terms = model.losses(batch_of(users, items, negatives))
    expected = losses_by_loops(model, UNION, users, items, negatives)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert_gradients(model, terms, lambda: losses_by_loops(model, UNION, users, items, negatives), abs=1e-6)


def test_dropout_leaves_numbers_of_a_layer_out_and_scales_up_the_rest(graph):
    model = model_of(graph, n_layers=2, dropout=0.5, graph="union")
    drawn = torch.Generator().manual_seed(3)
    heads = [torch.rand(N_NODES, DIM, generator=drawn) >= 0.5 for _ in range(2)]
    expected = final_by_loops(model, UNION, scale=lambda number, m, d: 2.0 * heads[number][m, d].item())
    everything = torch.arange(N_NODES)
    got = model.encode_rows(everything, torch.Generator().manual_seed(3))
    assert heads[0].any() and not heads[0].all()
    assert got.tolist() == [pytest.approx(row, abs=1e-7) for row in expected]


def test_dropout_is_drawn_from_the_batch_and_for_training_only(graph):
    model = model_of(graph, dropout=0.5)
    values = [
        model.losses(batch_of([0], [0], [[2]], torch.Generator().manual_seed(seed)))["bpr"].item() for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]
    model.eval()
    still = model.losses(batch_of([0], [0], [[2]], torch.Generator().manual_seed(1)))["bpr"].item()
    model.train()
    without = model_of(graph).losses(batch_of([0], [0], [[2]]))["bpr"].item()
    assert still == pytest.approx(without, rel=1e-12)
    torch.testing.assert_close(model.encode(), model_of(graph).encode())


@pytest.mark.parametrize("matrix", ["plain", "text", "released"])
def test_a_known_user_folded_in_again_lacks_only_its_own_layer_0(graph, history, matrix):
    model = model_of(graph, matrix=matrix, graph="union")
    with torch.no_grad():
        model.vectors_ND[0] = 0
        vectors = model.fold_in_vectors(history([UNION[0], [0, 0, 0]]))
        torch.testing.assert_close(vectors[:1], model.encode()[0][:1], rtol=1e-6, atol=1e-6)
    assert vectors.isfinite().all()


def test_one_behaviour_makes_target_and_union_the_same(drawn):
    graph = drawn(BUYS)
    torch.testing.assert_close(model_of(graph, graph="union").encode(), model_of(graph).encode())


@pytest.mark.parametrize(("settings", "says"), [({"n_layers": 0}, "n_layers"), ({"dropout": 1.0}, "dropout")])
def test_settings_out_of_range(settings, says):
    with pytest.raises(ConfigError, match=says):
        MODEL.Config(**settings)
