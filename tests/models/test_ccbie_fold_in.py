"""New users of CCBIE: their own share of (10), and where its descent ends."""

import numpy as np
import pytest
import torch
from tests.models.conftest import edges_from, graph_from
from tests.models.test_ccbie import ROWS, likelihood_by_loops, model_of, values_of
from torch.nn.functional import cosine_similarity, normalize

from macrorec.models import ccbie
from macrorec.models.ccbie import MODEL
from macrorec.train.trainer import TrainConfig, train

NEW = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]


def parts_of(model, history):
    """What ``_own_loss`` takes."""
    items_IZ = model.encode()[1].detach()
    own_E = history.item_E
    weight_B, row_E = model.others.weights(history.start_U, own_E)
    return items_IZ[own_E], row_E, model.others.of_edges(weight_B, row_E, own_E), weight_B, model.others.gram(items_IZ)


@pytest.mark.parametrize("true_negatives", [True, False])
@pytest.mark.parametrize("variant", ["full", "explicit", "implicit", "no-mlp", "softmax"])
def test_a_new_users_loss_is_what_training_draws_on_average(drawn, variant, true_negatives):
    """N negatives per pair, uniform over the items that the user has not, or over all: by plain loops over (8)."""
    model = model_of(drawn(ROWS), variant=variant, true_negatives=true_negatives)
    vectors_BD = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    got = model._own_loss(*parts_of(model, edges_from(NEW)))(vectors_BD).tolist()
    values = values_of(model)
    values["users_UD"] = vectors_BD.tolist()
    for b, row in enumerate(NEW):
        y = [likelihood_by_loops(model.config, values, b, item) for item in range(3)]
        own, others = [i for i in range(3) if row[i]], [i for i in range(3) if not (true_negatives and row[i])]
        drawn_each = [2 * len(own) / len(others) * y[i] ** 2 for i in others] if others else []
        assert got[b] == pytest.approx(sum((1 - y[i]) ** 2 for i in own) + sum(drawn_each), rel=1e-12), row


def test_the_vector_is_one_that_no_other_nearby_improves(drawn):
    """The user's side of (8) of some vector u, whose loss is below the start's and that of 200 neighbours."""
    model, history = model_of(drawn(ROWS)), edges_from(NEW[:1])
    loss = model._own_loss(*parts_of(model, history))
    unit_ID = normalize(model.items_ID.detach(), dim=-1)
    start_BD = normalize(unit_ID[0] + unit_ID[2], dim=-1)[None]
    end_BD = ccbie.descend(loss, start_BD, steps=ccbie.FOLD_STEPS, lr=ccbie.FOLD_RATE)
    torch.testing.assert_close(model.fold_in_vectors(history), model.user_vectors(end_BD).detach())
    near = normalize(end_BD, dim=-1) + 0.05 * torch.randn(200, 5, generator=torch.Generator().manual_seed(2)).double()
    reached = loss(end_BD).item()
    assert reached < 0.9 * loss(start_BD).item()
    assert min(loss(row[None]).item() for row in near) > reached - 1e-5


def test_each_user_alone_whatever_the_blocks(drawn, monkeypatch):
    model = model_of(drawn(ROWS))
    whole = model.fold_in_vectors(edges_from(NEW))
    for size in (1, 2, 3):
        monkeypatch.setattr(ccbie, "_PAIRS_AT_ONCE", size)
        torch.testing.assert_close(model.fold_in_vectors(edges_from(NEW)), whole)
    assert not whole[1].any() and whole[[0, 2, 3]].any(1).all()
    assert model.fold_in_vectors(edges_from([[0, 0, 0]])).tolist() == [[0.0] * whole.shape[1]]


def test_blocks_cover_all_users_once():
    start = torch.tensor([0, 2, 2, 7, 8, 8, 8])
    assert ccbie._blocks(start, 3) == [(0, 2), (2, 3), (3, 6)]
    assert ccbie._blocks(start, 100) == [(0, 6)]
    assert ccbie._blocks(start, 1) == [(0, 1), (1, 2), (2, 3), (3, 6)]
    assert ccbie._blocks(torch.tensor([0]), 5) == []


@pytest.fixture(scope="module")
def trained():
    """Sixty users of three tastes, who have two thirds of their taste's ten items, and one item of another."""
    rng = np.random.default_rng(0)
    rows = np.zeros((60, 30), dtype=int)
    for user in range(60):
        taste = user % 3
        rows[user, 10 * taste + rng.choice(10, 7, replace=False)] = 1
        rows[user, (10 * taste + rng.integers(10, 30)) % 30] = 1
    graph = graph_from(rows.tolist())
    config = MODEL.Config(dim=8, hidden=6, n_clusters=4, n_preferences=3, n_negatives=2)
    model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(0))
    train(model, graph, TrainConfig(epochs=200, batch_size=64, lr=0.01), seed=0)
    return model, graph


def test_a_user_of_train_who_is_folded_in_ranks_nearly_as_trained(trained):
    model, graph = trained
    with torch.no_grad():
        users_UZ, items_IZ = model.encode()
        folded_UZ = model.fold_in_vectors(graph.target)
        assert cosine_similarity(users_UZ, folded_UZ).min() > 0.95
        trained_UI, folded_UI = users_UZ @ items_IZ.T, folded_UZ @ items_IZ.T
        torch.testing.assert_close(model.fold_in(graph.target), folded_UI)
    best, again = (scores.topk(8, dim=1).indices for scores in (trained_UI, folded_UI))
    shared = [len(set(a) & set(b)) / 8 for a, b in zip(best.tolist(), again.tolist(), strict=True)]
    assert np.mean(shared) > 0.9


def test_a_few_items_tell_the_taste(trained):
    """Two items of a taste, and the six best of the others are of it, too."""
    model, _ = trained
    rows = np.zeros((3, 30), dtype=int)
    for taste in range(3):
        rows[taste, [10 * taste + 1, 10 * taste + 4]] = 1
    with torch.no_grad():
        scores = model.fold_in(edges_from(rows.tolist())).masked_fill(torch.from_numpy(rows).bool(), -1)
    assert (scores.topk(6, dim=1).indices // 10).tolist() == [[taste] * 6 for taste in range(3)]
