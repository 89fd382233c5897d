import math

import numpy as np
import pytest
import torch
from tests.contract.boards import log_of

from macrorec.api import RowBatch
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import build
from macrorec.models.evidence import MODEL
from macrorec.ops.choices import Near
from macrorec.train.config import TrainConfig
from macrorec.train.trainer import train

VIEW = [[1, 1, 0, 0], [0, 1, 1, 0]]
BUY = [[0, 1, 0, 1], [0, 0, 0, 1]]  # nobody viewed item 3, so that user 1 has no item similar to a purchase


def graph_of(*drawings):
    drawn = [np.array(d) for d in drawings]
    return build(log_of(*drawn[-1].shape, *(np.argwhere(d) for d in drawn)))


def model_of(graph, **settings):
    return MODEL.from_graph(MODEL.Config(**settings), graph, torch.Generator().manual_seed(0))


def evidence_of(model, u, i, held=-1):
    ask = [torch.tensor(x) for x in ([u], [held], [0, 1], [i])]
    return model.evidence.table(model.rows, *ask)[0]


def network_by_loops(model, network, x):
    """(2): ReLU after each hidden layer, none after the last."""
    x = [(v - m) * s for v, m, s in zip(x, model.centre_F.tolist(), model.scale_F.tolist(), strict=True)]
    layers = [(layer.weight.tolist(), layer.bias.tolist()) for layer in network.layers]
    for number, (weight, bias) in enumerate(layers):
        x = [b + sum(w * value for w, value in zip(row, x, strict=True)) for row, b in zip(weight, bias, strict=True)]
        if number < len(layers) - 1:
            x = [max(value, 0.0) for value in x]
    return x[0]


def share_of(u, i, near):
    """(4): ``near`` by cosines with the user's purchases, if there are any; else half uniform, half by buyers."""

    def alike(i, j):
        left, right = ([row[k] for row in VIEW] for k in (i, j))
        both = sum(a * b for a, b in zip(left, right, strict=True))
        return both / (math.sqrt(sum(left) * sum(right)) + 5) if i != j else 0

    total = sum(alike(k, j) for k in range(4) for j in range(4) if BUY[u][j])
    base = 0.5 / 4 + 0.5 * sum(row[i] for row in BUY) / sum(map(sum, BUY))
    return (1 - near) * base + near * sum(alike(i, j) for j in range(4) if BUY[u][j]) / total if total else base


def loss_by_loops(model, users, drawn):
    """(3): own items in full; each drawn one that is neither own nor bought counts for 1 / (N q)."""
    total, n_purchases = 0.0, 0
    for u, some in zip(users, drawn, strict=True):
        own = [i for i in range(4) if VIEW[u][i] and not BUY[u][i]]
        for p in (i for i in range(4) if BUY[u][i]):
            weights = [(p, 1.0)] + [(i, 1.0) for i in own]
            weights += [
                (i, 1 / (len(some) * share_of(u, i, model.config.near))) for i in some if i not in own and not BUY[u][i]
            ]
            x = {i: evidence_of(model, u, i, held=p).tolist() for i, _ in weights}
            score = {i: network_by_loops(model, model.network, x[i]) for i in x}
            total += math.log(sum(w * math.exp(score[i]) for i, w in weights)) - score[p]
            n_purchases += 1
    return total / n_purchases


def batch_of(model, users, seed):
    """A batch of these users, and what the model will draw for each."""
    bought = [[i for i in range(4) if BUY[u][i]] for u in users]
    start = torch.tensor([0, *map(len, bought)]).cumsum(0)
    items = torch.tensor([i for some in bought for i in some])
    row = torch.arange(len(users)).repeat_interleave(start.diff())
    near = Near(model.share_I, model.near_IK, model.alike_IK, model.config.near)
    generator, again = (torch.Generator().manual_seed(seed) for _ in range(2))
    drawn, _ = near.draw(row, items, len(users), model.config.n_sampled, generator)
    return RowBatch(torch.tensor(users), start, items, again), (drawn.view(len(users), -1) % 4).tolist()


@pytest.mark.parametrize(("users", "seed"), [([0, 1], 0), ([1, 0], 1), ([0], 2), ([1], 3)])
def test_the_loss_is_the_choice_among_own_and_drawn_items(users, seed):
    model = model_of(graph_of(VIEW, BUY), hidden=(4,), n_sampled=6, near=0.3)
    batch, drawn = batch_of(model, users, seed)
    assert model.losses(batch)["choice"].item() == pytest.approx(loss_by_loops(model, users, drawn), rel=1e-5)


def test_draws_stand_for_all_that_the_user_does_not_know():
    # Where every item scores alike, (3) is ln of 1 + own items + estimated others: on average as many as there are.
    model = model_of(graph_of(VIEW, BUY), hidden=(), n_sampled=100000)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.zero_()
    for user, n in enumerate((1 + 1 + 1, 1 + 2 + 1)):
        batch, _ = batch_of(model, [user], 0)
        assert model.losses(batch)["choice"].exp().item() == pytest.approx(n, rel=0.01)


def test_gradients_are_slopes_of_the_literal_loss():
    model = model_of(graph_of(VIEW, BUY), hidden=(), n_sampled=4)
    batch, drawn = batch_of(model, [0, 1], 3)
    model.losses(batch)["choice"].backward()
    weight = model.network.layers[0].weight
    for column in range(weight.shape[1]):
        ends = []
        for step in (1e-2, -2e-2):
            with torch.no_grad():
                weight[0, column] += step
            ends.append(loss_by_loops(model, [0, 1], drawn))
        with torch.no_grad():
            weight[0, column] += 1e-2
        assert weight.grad[0, column].item() == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-3, abs=2e-4), column


def test_scores_are_of_the_mean_of_the_weights():
    # (5) by hand: over 3 steps, after the first of which the start is forgotten.
    model = model_of(graph_of(VIEW, BUY), hidden=(2,), n_averaged=2)

    def descend(loss):
        loss.backward()
        with torch.no_grad():
            for weight in model.network.parameters():
                weight -= 0.1 * weight.grad
                weight.grad = None

    seen = []
    for step in range(3):
        model.training_step(batch_of(model, [0, 1], step)[0], descend)
        seen.append([weight.detach().clone() for weight in model.network.parameters()])
    expected = [((first + second) / 2 + third) / 2 for first, second, third in zip(*seen, strict=True)]
    torch.testing.assert_close([*model.averaged.buffers()], expected)
    assert not torch.allclose(expected[0], seen[-1][0])


def test_scores_are_the_network_of_the_evidence():
    model = model_of(graph_of(VIEW, BUY), hidden=(3, 2)).eval()
    with torch.no_grad():
        model.network.layers[0].weight.zero_()  # scores are those of the average
        got = model.score_all(torch.tensor([1, 0]))
    for row, u in enumerate((1, 0)):
        for i in range(4):
            expected = network_by_loops(model, model.averaged, evidence_of(model, u, i).tolist())
            assert got[row, i].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("auxiliary", [(VIEW,), (VIEW, [[0, 0, 1, 0], [0, 1, 0, 0]])])
@pytest.mark.parametrize(("discovery", "n_places"), [(0.0, 2), (0.2, 1), (0.2, 2), (3.0, 1), (3.0, 2), (3.0, 9)])
def test_new_items_get_places_by_their_bonus_and_stand_in_them_by_score(auxiliary, discovery, n_places):
    # (6) in loops: bought items take no place, and what any auxiliary behaviour has met is not new.
    graph = graph_of(*auxiliary, BUY)
    plain, model = (model_of(graph, discovery=x, n_places=n_places).eval() for x in (0.0, discovery))
    with torch.no_grad():
        score_BI, got_BI = plain.score_all(torch.arange(2)).tolist(), model.score_all(torch.arange(2))
        pairs = model.score(torch.tensor([1, 0]), torch.tensor([2, 3]))
    assert pairs.tolist() == [got_BI[1, 2], got_BI[0, 3]]
    for u, (score, got) in enumerate(zip(score_BI, got_BI, strict=True)):
        new = [not any(drawing[u][i] for drawing in auxiliary) for i in range(4)]
        raised = [s + discovery * n for s, n in zip(score, new, strict=True)]
        best = sorted((i for i in range(4) if not BUY[u][i]), key=lambda i: -raised[i])[:n_places]
        expected = sorted(best, key=lambda i: -score[i])
        rest = sorted((i for i in range(4) if i not in best), key=lambda i: -raised[i])
        order = expected + rest if discovery else sorted(range(4), key=lambda i: -score[i])
        assert got.argsort(descending=True).tolist() == order, u


def test_a_new_view_counts_at_once():
    model = model_of(graph_of(VIEW, BUY)).eval()
    later = [list(row) for row in VIEW]
    later[1][0] = 1
    edge = [kind == "edge" for kind in model.evidence.kinds].index(True)
    before = evidence_of(model, 1, 0)[edge].item()
    model.refresh(graph_of(later, BUY))
    assert (before, evidence_of(model, 1, 0)[edge].item()) == (0, 1)
    start = model.start_U[1:3].tolist()
    assert model.item_E[slice(*start)].tolist() == [0, 1, 2], "own items of user 1"


def test_columns_are_standardised_over_the_pairs_of_train():
    model = model_of(graph_of(VIEW, BUY))
    pairs = [(u, i) for u in range(2) for i in range(4) if VIEW[u][i] or BUY[u][i]]
    tables = [evidence_of(model, u, i).tolist() for u, i in pairs]
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
        torch.testing.assert_close(model.averaged_of(changed), model.averaged_of(x_CF))
        assert not torch.allclose(model.averaged_of(torch.where(gone, x_CF, 9.0)), model.averaged_of(x_CF))


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
    model = model_of(graph, n_averaged=10)
    train(model, graph, TrainConfig(epochs=30, batch_size=8, lr=0.01), seed=0)
    with torch.no_grad():
        scores = model.score_all(torch.arange(n_users))
    scores[torch.from_numpy(buy) == 1] = -math.inf
    best = scores.argmax(1)
    assert (view[np.arange(n_users), best] == 1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"without": ("edges",)},
        {"prior": 0.0},
        {"n_sampled": 0},
        {"n_neighbors": 0},
        {"dim": 0},
        {"n_averaged": 0},
        {"near": 1},
        {"n_places": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="evidence"):
        MODEL.Config(**settings)
