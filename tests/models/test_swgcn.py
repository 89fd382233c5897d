import math
from itertools import pairwise

import pytest
import torch
from tests.models.conftest import graph_from
from tests.models.slopes import assert_gradients

from macrorec.api import PairBatch
from macrorec.errors import ConfigError
from macrorec.models.swgcn import MODEL
from macrorec.ops.edges import kept

VIEWS = [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
BUYS = [[0, 1, 0], [1, 1, 0], [0, 0, 1]]  # user 2 has no views; item 2 is isolated among views
BATCH = ([0, 1, 1, 2], [1, 0, 1, 2], [[0, 2], [2, 2], [0, 2], [1, 0]])


def model_of(*drawings, **settings):
    config = MODEL.Config(**({"dim": 3, "dropout": 0.0, "init": "normal", "init_std": 0.7} | settings))
    model = MODEL.from_graph(config, graph_from(*drawings), torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)  # nothing is at a special value
    return model


def batch_of(users, items, negatives, seed=0):
    return PairBatch(*map(torch.tensor, (users, items, negatives)), torch.Generator().manual_seed(seed))


# --- the equations as they stand, in plain loops ---------------------------------------------------------------------


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def weights_by_loops(rows, start, beta, hidden=()):
    """(2) and (3): {(u, i): w}, {(u, i): w~}; without ``beta``, weights of one."""
    n_users, weight, distance = len(rows), {}, {}
    for u, row in enumerate(rows):
        near = [i for i, edge in enumerate(row) if edge and (u, i) not in hidden]
        for i in (i for i, edge in enumerate(row) if edge):
            weight[u, i] = 0.0
            distance[u, i] = sum((a - b) ** 2 for a, b in zip(start[u], start[n_users + i], strict=True))
        power = {}
        for i in near:
            x = sum(abs(a - b) * c for a, b, c in zip(start[u], start[n_users + i], beta or start[u], strict=True))
            power[i] = math.exp(x if x > 0 else math.exp(x) - 1)
        for i in near:
            weight[u, i] = power[i] / sum(power.values()) if beta else 1.0
    return weight, distance


def convolved_by_loops(rows, start, weight, config, masks=None):
    """(4) and (5), with degrees as (7) asks: all layers."""
    n_users, n_nodes, layers = len(rows), len(start), [start]
    near = [[] for _ in range(n_nodes)]
    for (u, i), w in weight.items():
        near[u].append((n_users + i, w))
        near[n_users + i].append((u, w))
    if config.degrees == "weighted":
        degree = [config.self_loop + sum(w for _, w in near[a]) for a in range(n_nodes)]
    else:
        degree = [config.self_loop + len(near[a]) for a in range(n_nodes)]
    for number in range(config.n_layers):
        layer = []
        for a in range(n_nodes):
            row = [
                config.self_loop * layers[-1][a][d] / degree[a]
                + sum(w * layers[-1][b][d] / math.sqrt(degree[a] * degree[b]) for b, w in near[a])
                for d in range(config.dim)
            ]
            if masks:
                row = [x * keep / (1 - config.dropout) for x, keep in zip(row, masks[number][a], strict=True)]
            layer.append(row)
        layers.append(layer)
    return layers


def fused_by_loops(vectors, query, key, value, config):
    """(8) to (12) for one node, from its vector of each behaviour."""

    def times(x, matrix):
        return [dot(x, [row[d] for row in matrix]) for d in range(len(x))]

    rows = []
    for x in vectors:
        power = [math.exp(dot(times(x, query), times(y, key)) / math.sqrt(config.dim)) for y in vectors]
        share = [p / sum(power) for p in power]
        rows.append(
            [x[d] + sum(s * times(y, value)[d] for s, y in zip(share, vectors, strict=True)) for d in range(config.dim)]
        )
    if config.union == "concat":
        return [a for row in rows for a in row]
    return [sum(row[d] for row in rows) / (len(rows) if config.union == "mean" else 1) for d in range(config.dim)]


def everything_by_loops(drawings, model, values, hidden=(), masks=None):
    """Final vectors of all nodes, and (w, w~) per behaviour."""
    config, final, edges = model.config, [], []
    for r, rows in enumerate(drawings):
        start = values["vectors.0" if config.shared_start else f"vectors.{r}"]
        last = r == len(drawings) - 1
        weight, distance = weights_by_loops(rows, start, values.get(f"betas.{r}"), hidden if last else ())
        layers = convolved_by_loops(rows, start, weight, config, masks and masks[r])
        if config.readout == "mean":
            n = len(layers)
            layers.append(
                [[sum(x[a][d] for x in layers) / n for d in range(config.dim)] for a in range(len(layers[0]))]
            )
        final.append(layers[-1])
        edges.append((weight, distance))
    matrices = [values[name] for name in ("query_DD", "key_DD", "value_DD")]
    return [fused_by_loops([x[a] for x in final], *matrices, config) for a in range(len(final[0]))], edges


def losses_by_loops(drawings, model, values, batch, masks=None):
    """(15) to (17)."""
    config, n_users, n_behaviors = model.config, len(drawings[0]), len(drawings)
    users, items, negatives = batch
    hidden = set(zip(users, items, strict=True)) if config.hide_positives else ()
    final, edges = everything_by_loops(drawings, model, values, hidden, masks)
    n_aligned = n_behaviors if config.align_target else n_behaviors - 1
    alignment, n_terms = 0.0, 0
    for weight, distance in edges[:n_aligned]:
        if not (weight and config.weigher and config.alignment != "none"):
            continue
        n_terms += 1
        for edge, w in weight.items():
            x = w - distance[edge]
            read = {"difference": x, "squared": x * x, "product": w * distance[edge]}[config.alignment]
            alignment += read / len(weight) / n_behaviors + config.valuator_l2 * distance[edge] ** 2 / n_behaviors
    bpr = batch_l2 = 0.0
    for u, i, drawn in zip(users, items, negatives, strict=True):
        for j in drawn:
            x = dot(final[u], final[n_users + i]) - dot(final[u], final[n_users + j])
            bpr += math.log1p(math.exp(-x)) / len(users) / len(drawn)
        for table in (rows for name, rows in values.items() if name.startswith("vectors")):
            batch_l2 += sum(dot(table[a], table[a]) for a in (u, *(n_users + k for k in (i, *drawn)))) / 2 / len(users)
    all_l2 = sum(
        sum(a * a for row in rows for a in (row if isinstance(row, list) else [row])) for rows in values.values()
    )
    share = config.alignment_weight if n_terms else 0.0
    l2 = all_l2 if config.l2_of == "all" else batch_l2
    terms = {"bpr": (1 - share) * bpr, "l2": (1 - share) * config.l2 * l2}
    return terms | ({"alignment": share * alignment} if n_terms else {})


def values_of(model):
    return {name: parameter.tolist() for name, parameter in model.named_parameters()}


# --- the tests -------------------------------------------------------------------------------------------------------


VARIANTS = [
    {},
    {"alignment": "difference"},
    {"alignment": "product", "align_target": True},
    {"alignment": "none", "readout": "mean"},
    {"weigher": False},
    {"degrees": "counted", "self_loop": 0.3, "union": "mean"},
    {"self_loop": 0.2, "union": "concat", "l2_of": "batch", "n_layers": 2},
    {"shared_start": True, "readout": "mean", "n_layers": 1},
    {"hide_positives": True, "self_loop": 0.5},
]


def test_one_edge_by_hand():
    # Its weight is 1, both degrees are 1 + 1: a layer is the mean of the two, and the next the same. Softmax over one
    # behaviour is 1, so E* = E + E W_v.
    model = model_of([[1]])
    assert torch.equal(model.edge_weights()[0], torch.ones(1))
    mean = model.vectors[0].mean(0)
    expected = mean + mean @ model.value_DD
    torch.testing.assert_close(torch.cat(model.encode()), torch.stack([expected, expected]))


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_encode_equals_the_literal_equations(settings):
    model = model_of(VIEWS, BUYS, **settings)
    expected, edges = everything_by_loops([VIEWS, BUYS], model, values_of(model))
    assert torch.cat(model.encode()).tolist() == [pytest.approx(row, abs=1e-12) for row in expected]
    if model.config.weigher:
        for got, (weight, _) in zip(model.edge_weights(), edges, strict=True):
            assert got.tolist() == pytest.approx([weight[edge] for edge in sorted(weight)], abs=1e-12)
    else:
        assert model.edge_weights() is None


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_losses_and_gradients_equal_the_literal_losses(settings):
    model = model_of(VIEWS, BUYS, l2=0.03, valuator_l2=0.02, alignment_weight=0.4, n_negatives=2, **settings)
    terms = model.losses(batch_of(*BATCH))

    def literal():
        return losses_by_loops([VIEWS, BUYS], model, values_of(model), BATCH)

    assert {name: term.item() for name, term in terms.items()} == pytest.approx(literal(), rel=1e-12)
    assert_gradients(model, terms, literal, step=1e-6, abs=1e-8, rel=1e-6)


def test_message_dropout_leaves_out_the_entries_that_the_seeds_say_at_every_layer():
    model = model_of(VIEWS, BUYS, dropout=0.4, n_negatives=2)
    seeds = model.seeds(torch.Generator().manual_seed(5))
    masks = [[kept(seed, 6, 3, 0.4).tolist() for seed in row] for row in seeds]
    expected = losses_by_loops([VIEWS, BUYS], model, values_of(model), BATCH, masks)
    terms = model.losses(batch_of(*BATCH, seed=5))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)
    assert len({seed for row in seeds for seed in row}) == 2 * 3
    assert model.losses(batch_of(*BATCH, seed=6))["bpr"] != terms["bpr"]
    without = model.eval().losses(batch_of(*BATCH, seed=5))
    assert without["bpr"].item() == pytest.approx(losses_by_loops([VIEWS, BUYS], model, values_of(model), BATCH)["bpr"])


@pytest.mark.parametrize("reading", ["difference", "squared", "product"])
def test_weigher_valuator_and_alignment_train(reading):
    """BPR moves beta through the edges' weights; the alignment moves start vectors, and beta where a reading can."""
    model = model_of(VIEWS, BUYS, alignment=reading, n_negatives=2)
    terms = model.losses(batch_of(*BATCH))
    for beta in model.betas:
        (slope,) = torch.autograd.grad(terms["bpr"], beta, retain_graph=True)
        assert slope.abs().max() > 1e-4
    by_beta, by_start = torch.autograd.grad(terms["alignment"], [model.betas[0], model.vectors[0]])
    assert by_start.abs().max() > 1e-3
    # A softmax sums to one for every user: w of the printed difference is a constant.
    assert (by_beta.abs().max() > 1e-4) == (reading != "difference")

    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer, history = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(30):
        terms = model.losses(batch_of(*BATCH))
        history.append(terms["alignment"].item())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert all(later < earlier for earlier, later in pairwise(history[:20]))
    assert all((value - before[name]).abs().max() > 0.01 for name, value in model.named_parameters())


@pytest.mark.parametrize("shared", [False, True])
def test_spectral_start_holds_who_met_what(shared):
    """All singular vectors: inner products of the start are the joint graph's edges, each over sqrt(d_u d_i)."""
    config = MODEL.Config(dim=4, init="spectral", init_std=0.3, shared_start=shared)
    model = MODEL.from_graph(config, graph_from(VIEWS, BUYS), torch.Generator().manual_seed(1))
    expected = torch.tensor([[1 / math.sqrt(4), 1 / math.sqrt(4), 0], [1 / math.sqrt(4)] * 2 + [0], [0, 0, 1]])
    for table in model.vectors:
        spectral, rest = table.detach()[:, :3], table.detach()[:, 3:]
        assert spectral.std().item() == pytest.approx(0.3)
        products = spectral[:3] @ spectral[3:].T
        torch.testing.assert_close(products / products[2, 2], expected, rtol=1e-5, atol=1e-5)
        assert rest.abs().min() > 0  # the graph has three vectors, and the model asked for four
    again = MODEL.from_graph(config, graph_from(VIEWS, BUYS), torch.Generator().manual_seed(1))
    assert torch.equal(again.vectors[0], model.vectors[0])


def test_values_from_zero_leave_the_sum_of_behaviours():
    model = model_of(VIEWS, BUYS, value_init="zero")
    layers = [model.convolve(r, model.weights(r)[0]) for r in range(2)]
    assert torch.equal(torch.cat(model.encode()), sum(layers))


def test_an_edge_of_both_ends_alike_keeps_a_weight_of_its_own():
    """Equal logits, equal weights; a large logit does not overflow."""
    model = model_of([[1, 1, 0], [1, 1, 1]])
    with torch.no_grad():
        model.vectors[0].copy_(torch.zeros(5, 3))
    assert model.edge_weights()[0].tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    with torch.no_grad():
        model.vectors[0][2], model.betas[0][:] = 1e6, 1.0
    assert model.edge_weights()[0].tolist() == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_behaviours_some_of_them_empty(n):
    nothing = [[0] * 3] * 3
    drawings = [VIEWS, nothing, BUYS, VIEWS, BUYS][-n:]
    model = model_of(*drawings, n_negatives=2)
    expected, _ = everything_by_loops(drawings, model, values_of(model))
    assert torch.cat(model.encode()).tolist() == [pytest.approx(row, abs=1e-12) for row in expected]
    terms = model.losses(batch_of(*BATCH))
    assert {name: t.item() for name, t in terms.items()} == pytest.approx(
        losses_by_loops(drawings, model, values_of(model), BATCH)
    )
    assert ("alignment" in terms) == (n > 1)


def test_hidden_positives_do_not_predict_themselves():
    """User 2's only purchase is item 2, and nobody else's: without that edge both stand for themselves."""
    seen, hidden = (model_of(VIEWS, BUYS, hide_positives=h, alignment="none", n_layers=2) for h in (False, True))
    batch = batch_of([2], [2], [[0]])
    slopes = []
    for model in (seen, hidden):
        (slope,) = torch.autograd.grad(model.losses(batch)["bpr"], model.betas[1])
        slopes.append(slope.abs().max())
    weight_E, _ = hidden.weights(1, hidden.hidden(batch))
    assert weight_E.tolist()[:3] == hidden.edge_weights()[1].tolist()[:3]
    assert weight_E[3] == 0
    assert hidden.edge_weights()[1][3] == 1
    assert seen.losses(batch)["bpr"] != hidden.losses(batch)["bpr"]


@pytest.mark.parametrize(("name", "value"), [("dropout", 1.0), ("alignment_weight", 1.1), ("self_loop", -0.1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        MODEL.Config(**{name: value})
