import math

import numpy as np
import pytest
import torch
from tests.contract.boards import log_of

from macrorec.api import PairBatch
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import build
from macrorec.models.evidence import MODEL
from macrorec.train.config import TrainConfig
from macrorec.train.trainer import train

VIEW = [[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 0, 1]]
BUY = [[0, 1, 0, 1, 0], [0, 1, 0, 0, 0], [1, 1, 0, 0, 0]]


def graph_of(*drawings):
    drawn = [np.array(d) for d in drawings]
    return build(log_of(*drawn[-1].shape, *(np.argwhere(d) for d in drawn)))


def model_of(graph, **settings):
    return MODEL.from_graph(MODEL.Config(**settings), graph, torch.Generator().manual_seed(0))


def network_by_loops(model, x):
    """(2): ReLU after each hidden layer, none after the last."""
    x = [(v - m) * s for v, m, s in zip(x, model.centre_F.tolist(), model.scale_F.tolist(), strict=True)]
    layers = [(layer.weight.tolist(), layer.bias.tolist()) for layer in model.network.layers]
    for number, (weight, bias) in enumerate(layers):
        x = [b + sum(w * value for w, value in zip(row, x, strict=True)) for row, b in zip(weight, bias, strict=True)]
        if number < len(layers) - 1:
            x = [max(value, 0.0) for value in x]
    return x[0]


def loss_by_loops(model, users, held, drawn):
    """(3): own items in full; those of the drawn that are not own count as often as they have others to stand for."""
    total = 0.0
    for u, p, some in zip(users, held, drawn, strict=True):
        own = [i for i in range(5) if VIEW[u][i] and not BUY[u][i]]
        known = [i for i in range(5) if VIEW[u][i] or BUY[u][i]]
        fresh = [i for i in some if i not in own]
        weights = [(p, 1.0)] + [(i, 1.0) for i in own] + [(i, (5 - len(known)) / len(fresh)) for i in fresh]
        scores = {}
        for i, _ in weights:
            ask = [torch.tensor(x) for x in ([u], [p], [0, 1], [i])]
            scores[i] = network_by_loops(model, model.table(*ask)[0].tolist())
        total += math.log(sum(w * math.exp(scores[i]) for i, w in weights)) - scores[p]
    return total / len(users)


@pytest.mark.parametrize("drawn", [[[2, 4], [0, 4], [3, 3]], [[4, 4], [2, 3], [4, 2]]])
def test_the_loss_is_the_choice_among_own_and_drawn_items(drawn):
    model = model_of(graph_of(VIEW, BUY), hidden=(4,))
    users, held = [0, 1, 2], [3, 1, 0]
    batch = PairBatch(torch.tensor(users), torch.tensor(held), torch.tensor(drawn), torch.Generator())
    expected = loss_by_loops(model, users, held, drawn)
    assert model.losses(batch)["choice"].item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_slopes_of_the_literal_loss():
    model = model_of(graph_of(VIEW, BUY), hidden=())
    users, held, drawn = [0, 1, 2], [1, 1, 1], [[2, 4], [0, 4], [3, 3]]
    batch = PairBatch(torch.tensor(users), torch.tensor(held), torch.tensor(drawn), torch.Generator())
    model.losses(batch)["choice"].backward()
    weight = model.network.layers[0].weight
    for column in range(weight.shape[1]):
        ends = []
        for step in (1e-2, -2e-2):
            with torch.no_grad():
                weight[0, column] += step
            ends.append(loss_by_loops(model, users, held, drawn))
        with torch.no_grad():
            weight[0, column] += 1e-2
        assert weight.grad[0, column].item() == pytest.approx((ends[0] - ends[1]) / 2e-2, abs=2e-4), column


def test_scores_are_the_network_of_the_evidence():
    model = model_of(graph_of(VIEW, BUY), hidden=(3, 2)).eval()
    with torch.no_grad():
        got = model.score_all(torch.tensor([2, 0]))
    for row, u in enumerate((2, 0)):
        for i in range(5):
            x = model.table(*(torch.tensor(x) for x in ([u], [-1], [0, 1], [i])))[0].tolist()
            assert got[row, i].item() == pytest.approx(network_by_loops(model, x), abs=1e-5)


def test_discovery_moves_the_items_that_were_not_met():
    plain, moved = (model_of(graph_of(VIEW, BUY), discovery=x).eval() for x in (0.0, 1.5))
    users = torch.arange(3)
    with torch.no_grad():
        difference = moved.score_all(users) - plain.score_all(users)
        pairs = moved.score(users, torch.tensor([2, 2, 2]))
        torch.testing.assert_close(pairs, moved.score_all(users)[:, 2])
    torch.testing.assert_close(difference, 1.5 * (1 - torch.tensor(VIEW)), atol=1e-5, rtol=0)


def test_a_new_view_counts_at_once():
    model = model_of(graph_of(VIEW, BUY)).eval()
    later = [list(row) for row in VIEW]
    later[1][4] = 1
    edge = [kind == "edge" for kind in model.evidence.kinds].index(True)
    ask = [torch.tensor(x) for x in ([1], [-1], [0, 1], [4])]
    before = model.table(*ask)[0, edge].item()
    model.refresh(graph_of(later, BUY))
    assert (before, model.table(*ask)[0, edge].item()) == (0, 1)
    start = model.start_U[1:3].tolist()
    assert model.item_E[slice(*start)].tolist() == [2, 4], "own items of user 1"


def test_columns_are_standardised_over_the_pairs_of_train():
    model = model_of(graph_of(VIEW, BUY))
    pairs = [(u, i) for u in range(3) for i in range(5) if VIEW[u][i] or BUY[u][i]]
    tables = [model.table(*(torch.tensor(x) for x in ([u], [-1], [0, 1], [i])))[0].tolist() for u, i in pairs]
    for column, values in enumerate(zip(*tables, strict=True)):
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))
        assert model.centre_F[column].item() == pytest.approx(mean, abs=1e-6)
        assert model.scale_F[column].item() == pytest.approx(1 / deviation if deviation > 1e-4 else 1, rel=1e-4)


@pytest.mark.parametrize("kind", ["edge", "rate", "together"])
def test_evidence_left_out_has_no_say(kind):
    model = model_of(graph_of(VIEW, BUY), without=(kind,))
    gone = torch.tensor([name == kind for name in model.evidence.kinds])
    x_CF = torch.randn(7, len(gone), generator=torch.Generator().manual_seed(0))
    changed = torch.where(gone, 9.0, x_CF)
    with torch.no_grad():
        torch.testing.assert_close(model.network_of(changed), model.network_of(x_CF))
        assert not torch.allclose(model.network_of(torch.where(gone, x_CF, 9.0)), model.network_of(x_CF))


def test_learning_finds_the_item_that_was_viewed():
    # Everybody buys one of the three items viewed, the one that most others bought, and never anything else.
    random = np.random.default_rng(0)
    n_users, n_items = 60, 20
    view = np.zeros((n_users, n_items), int)
    buy = np.zeros((n_users, n_items), int)
    for u in range(n_users):
        own = random.permutation(n_items)[:5]
        view[u, own] = 1
        buy[u, np.sort(own)[:2]] = 1
    graph = graph_of(view, buy)
    model = model_of(graph)
    train(model, graph, TrainConfig(epochs=15, batch_size=32, lr=0.01), seed=0)
    with torch.no_grad():
        scores = model.score_all(torch.arange(n_users))
    scores[torch.from_numpy(buy) == 1] = -math.inf
    best = scores.argmax(1)
    assert (view[np.arange(n_users), best] == 1).all()


@pytest.mark.parametrize("settings", [{"without": ("edges",)}, {"prior": 0.0}, {"n_sampled": 0}, {"n_neighbors": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="evidence"):
        MODEL.Config(**settings)
