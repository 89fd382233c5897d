import pytest
import torch
from tests.models.rankers import (
    SEEN,
    check_alone_as_among_others,
    check_compiled_as_plain,
    check_every_parameter_moves,
    features_of,
    graph_of,
    linear_by_hand,
    model_of,
    relu_mlp_by_hand,
    unknown,
    vectors_by_hand,
    written_out,
)

from macrorec.errors import ConfigError
from macrorec.models.widedeep import MODEL

CROSSES = ("user_group*item_group", "user_group*item", "user_recent*item")


def crossed_by_hand(model, row) -> float:
    """sum over crosses and pairs of their features of w_(a, b) x_a x_b."""
    total = 0.0
    for cross, weights in model.cross_weights.items():
        left, right = cross.split("*")
        n_right = {"item_group": 3, "item": 5}[right]
        total += sum(
            float(weights[a * n_right + b, 0]) * x * y for a, x in row[left].items() for b, y in row[right].items()
        )
    return total


@pytest.mark.parametrize("crosses", [CROSSES, CROSSES[:1], ()])
@pytest.mark.parametrize("seen", SEEN)
def test_the_logit_is_the_sum_of_a_wide_and_a_deep_part(seen, crosses):
    graph = graph_of(typed=True)
    model, features = model_of("widedeep", graph, fields=seen, crosses=crosses), features_of(graph)
    expected = [
        linear_by_hand(model.weights, row)
        + crossed_by_hand(model, row)
        + relu_mlp_by_hand(model.mlp, [x for vector in vectors_by_hand(model.embeddings, row) for x in vector])
        for row in written_out(features, seen)
    ]
    assert model.logits(features).tolist() == pytest.approx(expected, rel=1e-6)


def test_crosses_by_hand():
    graph = graph_of()
    model = MODEL(MODEL.Config(), graph)
    with torch.no_grad():
        for parameter in model.mlp.parameters():
            parameter.zero_()
        for cross, weights in model.cross_weights.items():
            weights.copy_(torch.arange(len(weights))[:, None] * {"user_recent*item": 100.0}.get(cross, 1.0))
    # user 0 is in group 0, item 2 in group 0 of 3: pair 0; group 0 and item 2 of 5: pair 2.
    # user 0 met items 0, 0 and 1: pairs 0 * 5 + 2, twice, and 1 * 5 + 2
    # user 1 is in group 0, item 1 in group 1: pair 1; group 0 and item 1: pair 1; it met 1 and 2: pairs 6 and 11
    logits = model.logits(graph.macro.features(*torch.tensor([[0, 1], [2, 1]]).numpy()))
    assert logits.tolist() == pytest.approx([0 + 2 + 100 * (2 + 2 + 7) / 3, 1 + 1 + 100 * (6 + 11) / 2])


def test_of_the_unknown_the_deep_part_alone_speaks():
    model = model_of("widedeep").float()
    assert model.logits(unknown()).tolist() == pytest.approx([relu_mlp_by_hand(model.mlp, [0.0] * 18)] * 2)


def test_pairs_beyond_the_buckets_are_spread_evenly_over_all_of_them():
    model = model_of("widedeep", buckets=64)
    model.size = {**model.size, "user_group": 40, "item": 200}
    left, right = (
        grid.flatten() for grid in torch.meshgrid(torch.arange(-1, 41), torch.arange(-1, 201), indexing="ij")
    )
    number = model.pairs("user_group*item", left, right)
    outside = (left < 0) | (left >= 40) | (right < 0) | (right >= 200)
    assert (number[outside] == -1).all()
    count = torch.bincount(number[~outside], minlength=64)
    assert len(count) == 64
    assert count.sum() == 8_000
    assert count.min() > 80  # 125 each on average
    assert count.max() < 180


def test_crosses_share_a_table_of_few_buckets():
    model = model_of("widedeep", buckets=4)
    assert {len(weights) for weights in model.cross_weights.values()} == {4}
    assert model.logits(features_of(graph_of())).isfinite().all()


def test_without_history_recents_are_not_crossed():
    assert set(model_of("widedeep", fields="ids").cross_weights) == set(CROSSES[:2])
    assert set(model_of("widedeep").cross_weights) == set(CROSSES)


@pytest.mark.parametrize("settings", [*({"fields": seen} for seen in SEEN), {"shared": True}, {"buckets": 5}])
def test_every_parameter_is_learned_and_no_impression_meets_another(settings, monkeypatch):
    graph = graph_of(typed=True)
    settings = {"hidden": (16, 8), **settings}
    check_alone_as_among_others(model_of("widedeep", graph, **settings), graph)
    check_every_parameter_moves(model_of("widedeep", graph, **settings), graph)
    check_compiled_as_plain(model_of("widedeep", graph, **settings), graph, monkeypatch)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dim": 0}, r"dim, buckets and hidden must be at least 1, not 0, 262144 and \[200, 80\]"),
        ({"buckets": 0}, "must be at least 1, not 10, 0 and"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, not -0.1"),
        ({"crosses": CROSSES[:1] * 2}, r"crosses names a pair twice: user_group\*item_group, user_group\*item_group"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        MODEL.Config(**settings)
