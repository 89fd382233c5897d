import math
from dataclasses import replace

import pytest
import torch
from tests.models.rankers import (
    N_ITEMS,
    SEEN,
    batch_of,
    check_alone_as_among_others,
    check_compiled_as_plain,
    check_every_parameter_moves,
    dice_by_hand,
    dice_mlp_by_hand,
    features_of,
    graph_of,
    model_of,
    unknown,
    vectors_by_hand,
    written_out,
)

from macrorec.errors import ConfigError
from macrorec.models.din import MODEL

ITEM_GROUP = [0, 1, 0, 2, -1]


def item_by_hand(model, item: int, group: int) -> list[float]:
    """[E_item, E_group], zeros for what is unknown."""
    tables = [(model.embeddings.table("item"), item), (model.embeddings.table("item_group"), group)]
    return [x for table, n in tables for x in (table[n].tolist() if 0 <= n < len(table) else [0.0] * table.shape[1])]


def activation_by_hand(model, e: list[float], v: list[float]) -> float:
    """Figure 2: a network on e, v and their product."""
    unit = model.unit
    x = []
    for h in range(len(unit.bias_H)):
        total = float(unit.bias_H[h])
        for d in range(len(e)):
            total += e[d] * float(unit.recent_VH[d, h]) + v[d] * float(unit.item_VH[d, h])
            if unit.product.ndim == 2:
                total += e[d] * v[d] * float(unit.product[d, h])
            else:
                total += sum(v[c] * e[d] * float(unit.product[c, d, h]) for c in range(len(v)))
        x.append(total)
    last = sum(y * w for y, w in zip(dice_by_hand(unit.dice, x), unit.last_H.tolist(), strict=True))
    return last if unit.last_bias is None else last + float(unit.last_bias)


def interest_by_hand(model, features, b: int) -> list[float]:
    """(3), one recent item after the other."""
    v = item_by_hand(model, int(features.item_B[b]), int(features.item_group_B[b]))
    recent = [n for n in features.user_recent_BR[b].tolist() if 0 <= n < N_ITEMS]
    vectors = [item_by_hand(model, n, ITEM_GROUP[n]) for n in recent]
    weights = [activation_by_hand(model, e, v) for e in vectors]
    if model.config.softmax:
        weights = [math.exp(a) / sum(math.exp(other) for other in weights) for a in weights]
    return [sum(a * e[d] for a, e in zip(weights, vectors, strict=True)) for d in range(len(v))]


@pytest.mark.parametrize("product", ["outer", "elementwise"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_recent_items_count_as_the_activation_unit_says(seen, softmax, product):
    graph = graph_of(typed=True)
    model = model_of("din", graph, fields=seen, softmax=softmax, product=product, unit=3)
    features = features_of(graph)
    expected = []
    for b, row in enumerate(written_out(features, seen)):
        attended = row.pop("user_recent", None) is not None
        vectors = vectors_by_hand(model.embeddings, row) + ([interest_by_hand(model, features, b)] if attended else [])
        expected.append(dice_mlp_by_hand(model.mlp, [x for vector in vectors for x in vector]))
    assert model.logits(features).tolist() == pytest.approx(expected, rel=1e-6)


def test_an_interest_is_as_strong_as_its_weights_sum_to():
    graph = graph_of()
    model = model_of("din", graph)
    torch.nn.init.zeros_(model.unit.last_H)
    torch.nn.init.constant_(model.unit.last_bias, 0.5)
    features = features_of(graph)
    total = [
        sum(column) / 2 for column in zip(*(item_by_hand(model, n, ITEM_GROUP[n]) for n in (0, 1, 0)), strict=True)
    ]
    assert model.interest(features)[0].tolist() == pytest.approx(total)


def test_who_has_met_nothing_has_no_interest():
    model = model_of("din").float()
    assert not model.interest(unknown()).count_nonzero()
    assert model.logits(unknown()).tolist() == pytest.approx([dice_mlp_by_hand(model.mlp, [0.0] * 21)] * 2)


def test_padding_counts_neither_in_the_sum_nor_in_the_statistics():
    graph = graph_of()
    features = features_of(graph)
    padding = torch.full((len(features), 4), -1)
    padding[:, 2] = 99  # an item that came after the model
    padded = replace(features, user_recent_BR=torch.cat([features.user_recent_BR, padding], 1))
    found = []
    for seen in (features, padded):
        model = model_of("din", graph).train()
        found.append([model.losses(batch_of(seen))["bce"], *model.unit.dice.statistics()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_batch_in_which_nobody_has_met_anything_can_be_learned_from():
    model = model_of("din").float().train().requires_grad_()
    model.losses(batch_of(unknown(3)))["bce"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(value.isfinite().all() for value in model.unit.dice.statistics())


def test_initial_values_of_the_unit_are_those_of_one_layer_on_all_that_it_sees():
    model = MODEL.from_graph(MODEL.Config(dim=2, unit=7), graph_of(), torch.Generator().manual_seed(0))
    bound = (6 / (2 * 4 + 4 * 4 + 7)) ** 0.5
    for weights in (model.unit.recent_VH, model.unit.item_VH, model.unit.product):
        assert 0.8 * bound < float(weights.detach().abs().max()) <= bound
    assert not model.unit.bias_H.count_nonzero()


def test_a_batch_of_nobody_is_empty():
    assert model_of("din").logits(features_of(graph_of()).take(torch.arange(0))).shape == (0,)


@pytest.mark.parametrize(
    "settings", [*({"fields": seen} for seen in SEEN), {"softmax": True}, {"product": "elementwise"}]
)
def test_every_parameter_is_learned_and_no_impression_meets_another(settings, monkeypatch):
    graph = graph_of(typed=True)
    check_alone_as_among_others(model_of("din", graph, **settings), graph)
    check_every_parameter_moves(model_of("din", graph, **settings), graph)
    check_compiled_as_plain(model_of("din", graph, **settings), graph, monkeypatch)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"unit": 0}, r"dim, unit and hidden must be at least 1, not 10, 0 and \[200, 80\]"),
        ({"dropout": 1.5}, "dropout must be at least 0 and below 1, not 1.5"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        MODEL.Config(**settings)
