import math

import pytest
import torch
from tests.models.slopes import assert_gradients

from macrorec.api import PointBatch, Pointwise, TwoTower
from macrorec.errors import ConfigError
from macrorec.eval.ranking import top_k
from macrorec.models.ncf import GMF, MODEL
from macrorec.train.config import TrainConfig
from macrorec.train.trainer import train

ROWS = [[1, 1, 0], [0, 1, 0], [0, 0, 0]]  # user 2 and item 2 are isolated
KINDS = ("gmf", "mlp", "neumf")
USERS, ITEMS, LABELS = [0, 1, 0, 1, 2], [0, 1, 2, 0, 1], [1.0, 1.0, 0.0, 0.0, 0.0]


def model_of(graph, kind, **settings):
    config = MODEL.Config(kind=kind, **({"dim": 2, "hidden": (3, 2), "init_std": 0.8} | settings))
    model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.add_(0.07 * (n + 1))  # nothing is at a special value
    return model


def batch_of(users, items, labels):
    return PointBatch(torch.tensor(users), torch.tensor(items), torch.tensor(labels).double(), torch.Generator())


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def values_of(model):
    return {name: value.tolist() for name, value in model.state_dict().items()}


def logit_by_loops(kind, values, p, q):
    """(9), (10), (12) as they stand; of a NeuMF the first halves of p and q are GMF's, the others MLP's."""
    total, half = 0.0, len(p) // 2
    if kind == "gmf":
        total += values["constant"]
    if kind != "mlp":
        own = (p, q) if kind == "gmf" else (p[:half], q[:half])
        total += dot(values["h_D"], [a * b for a, b in zip(*own, strict=True)])
    if kind != "gmf":
        z = p + q if kind == "mlp" else p[half:] + q[half:]
        n = 0
        while f"tower.layers.{n + 1}.weight" in values:
            weight, bias = values[f"tower.layers.{n}.weight"], values[f"tower.layers.{n}.bias"]
            z = [max(0.0, dot(row, z) + b) for row, b in zip(weight, bias, strict=True)]
            n += 1
        total += dot(values[f"tower.layers.{n}.weight"][0], z) + values[f"tower.layers.{n}.bias"][0]
    return total


def scores_by_loops(model, users):
    """Logits of all pairs, without GMF's constant."""
    kind, values = model.config.kind, values_of(model)
    if kind == "gmf":
        values["constant"] = 0.0
    return [[logit_by_loops(kind, values, p, q) for q in values["items_ID"]] for p in users]


def losses_by_loops(kind, values, l2, rows):
    """(7), the mean over the rows, and l2 / (2 B) of their squared vectors."""
    bce = squares = 0.0
    for u, i, label in rows:
        p, q = values["users_UD"][u], values["items_ID"][i]
        chance = 1 / (1 + math.exp(-logit_by_loops(kind, values, p, q)))
        bce -= (label * math.log(chance) + (1 - label) * math.log(1 - chance)) / len(rows)
        squares += dot(p, p) + dot(q, q)
    return {"bce": bce, "l2": l2 * squares / 2 / len(rows)}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_literal_equations(drawn, kind):
    model = model_of(drawn(ROWS), kind)
    expected = scores_by_loops(model, values_of(model)["users_UD"])
    with torch.no_grad():
        everything = model.score_all(torch.tensor([2, 0, 1]))
        some = model.score_some(torch.tensor([1, 2]), torch.tensor([2, 0]))
        pairs = model.score(torch.tensor([0, 2]), torch.tensor([1, 2]))
    assert everything.tolist() == [pytest.approx(expected[u]) for u in (2, 0, 1)]
    assert some.tolist() == [pytest.approx([expected[u][i] for i in (2, 0)]) for u in (1, 2)]
    assert pairs.tolist() == pytest.approx([expected[0][1], expected[2][2]])


@pytest.mark.parametrize("hidden", [(3, 2), (4,)])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_equal_the_literal_loss(drawn, kind, hidden):
    model = model_of(drawn(ROWS), kind, l2=0.3, hidden=hidden)
    terms = model.losses(batch_of(USERS, ITEMS, LABELS))
    rows = list(zip(USERS, ITEMS, LABELS, strict=True))
    expected = losses_by_loops(kind, values_of(model), 0.3, rows)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    assert_gradients(model, terms, lambda: losses_by_loops(kind, values_of(model), 0.3, rows), abs=1e-7)


def test_without_l2_there_is_no_such_term(drawn):
    assert model_of(drawn(ROWS), "neumf").losses(batch_of(USERS, ITEMS, LABELS)).keys() == {"bce"}


def test_gmf_by_hand(drawn):
    # h o p = (2 * 1, -1 * 3) = (2, -3); with q = (4, 1): 8 - 3 = 5; the constant .5 enters the loss alone.
    model = model_of(drawn([[1]]), "gmf")
    with torch.no_grad():
        model.users_UD[0], model.items_ID[0] = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 1.0])
        model.h_D.copy_(torch.tensor([2.0, -1.0]))
        model.constant.fill_(0.5)
        assert model.score_all(torch.tensor([0])).item() == 5
        loss = model.losses(batch_of([0], [0], [1.0]))["bce"].item()
    assert loss == pytest.approx(math.log(1 + math.exp(-5.5)))


def test_gmf_retrieves_and_the_others_do_not(drawn):
    for kind in KINDS:
        model = model_of(drawn(ROWS), kind)
        assert isinstance(model, MODEL) and isinstance(model, GMF) == isinstance(model, TwoTower) == (kind == "gmf")
    model = model_of(drawn(ROWS), "gmf")
    users, items = model.encode()
    best = (users @ items.T).argsort(1, descending=True)
    assert torch.equal(torch.from_numpy(top_k(model, [0, 1, 2], 3)[0]), best)


@pytest.mark.parametrize("kind", ["mlp", "neumf"])
def test_a_new_user_is_the_mean_over_its_items_of_their_mean_user(drawn, history, kind):
    model = model_of(drawn(ROWS), kind)
    users = values_of(model)["users_UD"]
    mean = [users[0], [(a + b) / 2 for a, b in zip(users[0], users[1], strict=True)], [0.0] * len(users[0])]
    new = [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
    own = [[mean[i] for i in range(3) if row[i]] or [[0.0] * len(users[0])] for row in new]
    folded = [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in own]
    with torch.no_grad():
        got = model.fold_in(history(new)).tolist()
    assert got == [pytest.approx(row, abs=1e-7) for row in scores_by_loops(model, folded)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_every_parameter_and_a_checkerboard(drawn, kind):
    rows = [[int(u % 2 == i % 2 and u != i) for i in range(12)] for u in range(12)]
    graph = drawn(rows)
    model = MODEL.from_graph(MODEL.Config(kind=kind, dim=8), graph, torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.named_parameters()}
    train(model, graph, TrainConfig(epochs=40, batch_size=16, lr=0.01, threads=1), seed=0)
    assert all((value != before[name]).any() for name, value in model.named_parameters())
    with torch.no_grad():
        value = model.score_all(torch.arange(12))
    odd = torch.tensor([[(u - i) % 2 == 1 for i in range(12)] for u in range(12)])
    assert (value.diagonal() > value.where(odd, -torch.inf).max(1).values).all()


def test_dropout_leaves_out_hidden_units_by_the_generator_of_the_batch(drawn):
    model = model_of(drawn(ROWS), "mlp", dropout=0.5, hidden=(64,)).train()
    loss = [
        model.losses(PointBatch(*map(torch.tensor, (USERS, ITEMS, LABELS)), torch.Generator().manual_seed(seed)))["bce"]
        for seed in (0, 0, 1)
    ]
    assert loss[0] == loss[1] != loss[2]
    assert model.eval().losses(batch_of(USERS, ITEMS, LABELS))["bce"] not in loss


def test_start(drawn):
    model = MODEL.from_graph(MODEL.Config(dim=4096, hidden=()), drawn(ROWS), torch.Generator().manual_seed(0))
    for table in (model.users_UD, model.items_ID):
        assert table.shape == (3, 8192)
        assert table.std().item() == pytest.approx(0.01, rel=0.05)
    bound = (3 / 4096) ** 0.5
    assert model.h_D.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert model.batches == Pointwise(n=4, true_negatives=True)


def test_ranges(drawn):
    for settings in ({"dim": 0}, {"hidden": (4, 0)}):
        with pytest.raises(ConfigError, match="dim and hidden must be at least 1"):
            MODEL.Config(**settings)
    with pytest.raises(ConfigError, match="dropout must be at least 0 and below 1, not 1"):
        MODEL.Config(dropout=1)
    for kind in KINDS:
        graph, config = drawn(ROWS), MODEL.Config(kind=kind)
        model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(0))
        held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
        assert MODEL.memory(config, graph) >= held
