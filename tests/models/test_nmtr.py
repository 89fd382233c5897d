import math

import pytest
import torch
from tests.models.conftest import graph_from
from tests.models.slopes import assert_gradients

from macrorec.api import PointBatch, Pointwise
from macrorec.errors import ConfigError
from macrorec.models.nmtr import MODEL

VIEWS = [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
CARTS = [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
BUYS = [[0, 1, 0], [1, 1, 0], [0, 0, 1]]
USERS, ITEMS, LABELS = [0, 1, 2, 0, 0, 1, 2], [1, 0, 2, 0, 2, 1, 2], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
BEHAVIORS = [2, 0, 2, 0, 0, 2, 2]  # no row of behaviour 1


def model_of(*drawings, **settings):
    config = MODEL.Config(**({"dim": 2, "init_std": 0.8} | settings))
    model = MODEL.from_graph(config, graph_from(*drawings), torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.add_(0.07 * (n + 1))  # nothing is at a special value
    return model


def batch_of(users, items, labels, behaviors):
    arrays = (torch.tensor(users), torch.tensor(items), torch.tensor(labels).double())
    return PointBatch(*arrays, torch.Generator(), torch.tensor(behaviors))


def values_of(model):
    return {name: value.tolist() for name, value in model.state_dict().items()}


def logits_by_loops(values, u, i):
    """logit_r = f_r + logit_{r-1} + b_r, f_r = h_r.(p o q), for r = 1, 2, ..."""
    logits = []
    for h, b in zip(values["h_RD"], values["b_R"], strict=True):
        f = sum(a * p * q for a, p, q in zip(h, values["users_UD"][u], values["items_ID"][i], strict=True))
        logits.append(f + (logits[-1] if logits else 0.0) + b)
    return logits


def losses_by_loops(values, weights, mean, l2, rows):
    """sum_r lambda_r log loss_r, divided by all rows or by those of r; l2 / (2 B) of the squared vectors."""
    bce = 0.0
    for r, weight in enumerate(weights):
        own = [row for row in rows if row[3] == r]
        for u, i, label, _ in own:
            chance = 1 / (1 + math.exp(-logits_by_loops(values, u, i)[r]))
            bce -= (
                weight
                * (label * math.log(chance) + (1 - label) * math.log(1 - chance))
                / len(own if mean == "behaviors" else rows)
            )
    squares = sum(x * x for u, i, _, _ in rows for x in values["users_UD"][u] + values["items_ID"][i])
    return {"bce": bce, "l2": l2 * squares / 2 / len(rows)}


@pytest.mark.parametrize("mean", ["rows", "behaviors"])
@pytest.mark.parametrize("weights", [None, (0.5, 0.2, 0.3)])
def test_losses_and_gradients_equal_the_literal_loss(weights, mean):
    model = model_of(VIEWS, CARTS, BUYS, l2=0.3, weights=weights, mean=mean)
    terms = model.losses(batch_of(USERS, ITEMS, LABELS, BEHAVIORS))
    rows = list(zip(USERS, ITEMS, LABELS, BEHAVIORS, strict=True))
    shares = weights or (1 / 3, 1 / 3, 1 / 3)
    expected = losses_by_loops(values_of(model), shares, mean, 0.3, rows)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert_gradients(model, terms, lambda: losses_by_loops(values_of(model), shares, mean, 0.3, rows), abs=1e-7)


def test_equal_weights_count_every_row_alike_and_so_do_means_weighed_by_rows():
    batch, mean = batch_of(USERS, ITEMS, LABELS, BEHAVIORS), 0.0
    model = model_of(VIEWS, CARTS, BUYS)
    for u, i, label, r in zip(USERS, ITEMS, LABELS, BEHAVIORS, strict=True):
        mean += math.log1p(math.exp((1 - 2 * label) * logits_by_loops(values_of(model), u, i)[r])) / 7
    assert model.losses(batch)["bce"].item() == pytest.approx(mean / 3, rel=1e-6)
    weighed = model_of(VIEWS, CARTS, BUYS, mean="behaviors", weights=(3 / 7, 0.0, 4 / 7))
    assert weighed.losses(batch)["bce"].item() == pytest.approx(mean, rel=1e-6)


def test_by_hand():
    # p o q = (3, 2): f = 3 - 2 = 1, then 2 * 3 = 6; logits 1 + .5 = 1.5 and 1.5 + 6 - 1 = 6.5; without b, 7.
    model = model_of(VIEWS, BUYS, mean="behaviors")
    with torch.no_grad():
        model.users_UD[0], model.items_ID[1] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
        model.h_RD.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
        model.b_R.copy_(torch.tensor([0.5, -1.0]))
        assert model.logits(model.users_UD[:1], model.items_ID[1:2]).tolist() == [[1.5, 6.5]]
        assert model.score(torch.tensor([0]), torch.tensor([1])).item() == 7
        loss = model.losses(batch_of([0, 0], [1, 1], [1.0, 0.0], [0, 1]))["bce"].item()
    assert loss == pytest.approx((math.log1p(math.exp(-1.5)) + math.log1p(math.exp(6.5))) / 2)


@pytest.mark.parametrize("drawings", [(BUYS,), (VIEWS, BUYS), (VIEWS, CARTS, BUYS), (VIEWS, CARTS, CARTS, VIEWS, BUYS)])
def test_scores_are_logits_of_the_target_without_the_constant(drawings):
    model = model_of(*drawings)
    values = values_of(model)
    expected = [[logits_by_loops(values, u, i)[-1] - sum(values["b_R"]) for i in range(3)] for u in range(3)]
    assert model.score_all(torch.arange(3)).tolist() == [pytest.approx(row, abs=1e-9) for row in expected]


def test_a_row_teaches_its_own_behaviour_and_those_before_it():
    model = model_of(VIEWS, CARTS, BUYS)
    for behavior, reached in ((0, [True, False, False]), (1, [True, True, False]), (2, [True, True, True])):
        model.zero_grad()
        model.losses(batch_of([0, 1], [1, 2], [1.0, 0.0], [behavior] * 2))["bce"].backward()
        assert model.h_RD.grad.bool().any(1).tolist() == model.b_R.grad.bool().tolist() == reached


def test_start():
    graph = graph_from(VIEWS, BUYS)
    model = MODEL.from_graph(MODEL.Config(dim=4096), graph, torch.Generator().manual_seed(0))
    for table in (model.users_UD, model.items_ID):
        assert table.std().item() == pytest.approx(0.01, rel=0.05)
    assert model.h_RD.abs().max().item() == pytest.approx((3 / 4096) ** 0.5, rel=0.01)
    assert model.b_R.tolist() == [0, 0]
    assert model.batches == Pointwise(n=4, true_negatives=True, every_behavior=True)
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert MODEL.memory(model.config, graph) >= 4 * held


def test_ranges():
    with pytest.raises(ConfigError, match="dim must be at least 1, not 0"):
        MODEL.Config(dim=0)
    for weights in ((0.5, 0.4), (1.5, -0.5), ()):
        with pytest.raises(ConfigError, match="weights must be at least 0 and sum to 1"):
            MODEL.Config(weights=weights)
    with pytest.raises(ConfigError, match="weights are 2 numbers, and behaviours are 3: view0, view1, buy"):
        model_of(VIEWS, CARTS, BUYS, weights=(0.5, 0.5))
