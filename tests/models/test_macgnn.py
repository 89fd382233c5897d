import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from macrorec.api import ImpressionBatch
from macrorec.data.log import Behavior
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import TypedMacroGraph
from macrorec.models.macgnn import MODEL

N_USERS, N_ITEMS = 3, 4
OPTIONS = {
    "paper": {},
    "released": {"attention": "released"},
    "no macro weights": {"macro_weights": False},
    "no temperature": {"temperature": False},
    "no recents": {"recents": False},
    "no hop 2": {"hop2": False},
    "no item side": {"item_side": False},
    "no hop 2, no item side": {"hop2": False, "item_side": False},
    "masked": {"mask_empty": True},
    "masked, released": {"mask_empty": True, "attention": "released"},
    "normalised": {"normalise": True},
    "normalised, masked": {"normalise": True, "mask_empty": True},
    "own group": {"own_group": True},
    "own group, first hop of the user": {"own_group": True, "hop2": False, "item_side": False},
    "bias": {"bias": True},
    "volumes": {"volumes": True},
}
EVENTS = ([0, 0, 1, 1, 2, 0], [0, 1, 1, 2, 2, 0])
"""User 0 met items 0, 1 and 0 again, user 1 items 1 and 2, user 2 item 2; nobody item 3."""


def graph_of(*, typed: bool = False) -> Graph:
    """Users 0, 1 | 2 and items 0, 2 | 1, 3 in groups, and a third group of items that is empty."""
    groups = (Groups(np.array([0, 0, 1], np.int32), 2), Groups(np.array([0, 1, 0, 1], np.int32), 3))
    events = [np.array(column) for column in EVENTS]
    if typed:
        kind = np.array([0, 1, 0, 0, 1, 0])
        macro = TypedMacroGraph(*groups, *events, None, None, kind, types=("liked", "not"), recents=3)
    else:
        macro = MacroGraph(*groups, *events, recents=3)
    return Graph(N_USERS, N_ITEMS, (Behavior(name="buy"),), (edges_of(*events, N_USERS, N_ITEMS),), macro)


def model_of(graph=None, *, trained=True, double=True, **settings):
    """A small model with parameters of all signs, and running statistics of a few batches, in evaluation mode."""
    config = MODEL.Config(**{"dim": 3, "hidden": (5, 4), **settings})
    generator = torch.Generator().manual_seed(0)
    model = MODEL.from_graph(config, graph or graph_of(), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.7)
    model = model.double() if double else model
    if trained:
        for _ in range(3):
            model.logits(everything(model, double=double))
    return model.eval()


def everything(model, *, double=True):
    """All pairs, and those of a new user and a new item."""
    users, items = (grid.ravel() for grid in np.meshgrid(np.arange(-1, N_USERS), np.arange(-1, N_ITEMS)))
    return cast(model.macro.features(users, items), double=double)


def cast(features, *, double=True):
    kind = torch.float64 if double else torch.float32
    return replace(
        features,
        **{f.name: v.to(kind) for f in fields(features) if (v := getattr(features, f.name)).is_floating_point()},
    )


def one(features, row):
    return features.take(torch.tensor([row]))


# --- the literal model -----------------------------------------------------------------------------------------------


def softmax(values):
    highest = max(values)
    total = sum(math.exp(v - highest) for v in values)
    return [math.exp(v - highest) / total for v in values]


def matrix_times(row, matrix):
    return [sum(x * matrix[d][a] for d, x in enumerate(row)) for a in range(len(matrix[0]))]


def inner(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def aggregate(mna, target, neighbours, weights):
    """sum_p w_p softmax_p(<Q E_p, K E_t> / sqrt(d')) V E_p, neighbour by neighbour."""
    value = mna.value_DA.tolist()
    z = [0.0] * len(value[0])
    if not neighbours:
        return z
    if mna.query_DA is None:
        attention = [1.0] * len(neighbours)
    else:
        key = matrix_times(target, mna.key_DA.tolist())
        queries = [matrix_times(row, mna.query_DA.tolist()) for row in neighbours]
        attention = softmax([inner(query, key) / math.sqrt(len(key)) for query in queries])
    both = [w * a for w, a in zip(weights, attention, strict=True)]
    for factor, row in zip(both, neighbours, strict=True):
        z = [old + factor * new for old, new in zip(z, matrix_times(row, value), strict=True)]
    return z


def literal_logit(model, features):
    """Equations (6) and (7) and the readout for one impression, in loops."""
    config, f = model.config, {field.name: getattr(features, field.name)[0].tolist() for field in fields(features)}
    none = [0.0] * config.dim
    users, items = model.users_UD.tolist(), model.items_ID.tolist()
    user = users[f["user_B"]] if f["user_B"] >= 0 else none
    item = items[f["item_B"]] if f["item_B"] >= 0 else none
    item_groups = model.item_groups_QD.tolist()
    user_groups = model.user_groups_PD.tolist() if hasattr(model, "user_groups_PD") else []
    if config.own_group:
        own = (user_groups[f["user_group_B"]] if f["user_group_B"] >= 0 else none,
               item_groups[f["item_group_B"]] if f["item_group_B"] >= 0 else none)  # fmt: skip
        user, item = ([a + b for a, b in zip(x, y, strict=True)] for x, y in zip((user, item), own, strict=True))

    def macro(counts, groups, mna, target):
        met = [k for k in range(len(counts)) if counts[k] > 0 or not config.mask_empty]
        if not met:
            return [0.0] * (2 * config.dim)
        tau = config.tau if config.temperature else 1
        weights = softmax([math.log(counts[k] + 1) / tau for k in met]) if config.macro_weights else [1.0] * len(met)
        z = aggregate(mna, target, [groups[k] for k in met], weights)
        if not config.normalise:
            return z
        attention = [1.0] * len(met)
        if mna.query_DA is not None:
            key = matrix_times(target, mna.key_DA.tolist())
            attention = softmax(
                [inner(matrix_times(groups[k], mna.query_DA.tolist()), key) / math.sqrt(len(key)) for k in met]
            )
        return [x / inner(weights, attention) for x in z]

    def recent(numbers, table, mna, target):
        known = [table[n] for n in numbers if n >= 0]
        return aggregate(mna, target, known, [1.0] * len(known))

    x = [*user, *item, *macro(f["user_hop1_BQ"], item_groups, model.of_items, item)]
    if config.hop2 and config.item_side:
        x += macro(f["item_hop2_BQ"], item_groups, model.of_items, item)
    if config.recents:
        x += recent(f["user_recent_BR"], items, model.of_items, item)
    if config.hop2:
        x += macro(f["user_hop2_BP"], user_groups, model.of_users, user)
    if config.item_side:
        x += macro(f["item_hop1_BP"], user_groups, model.of_users, user)
    if config.item_side and config.recents:
        x += recent(f["item_recent_BR"], users, model.of_users, user)
    if config.volumes:
        x += [math.log(n + 1) for n in f["user_volume_BC"] + f["item_volume_BC"]]
    for layer, dice in zip(model.readout.layers, [*model.readout.gates, None], strict=True):
        x = [inner(w, x) + b for w, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]
        if dice is not None:
            mean, variance = (s.tolist() for s in dice.statistics())
            p = [1 / (1 + math.exp(-(v - m) / math.sqrt(s + 1e-8))) for v, m, s in zip(x, mean, variance, strict=True)]
            x = [q * v + (1 - q) * a * v for v, q, a in zip(x, p, dice.alpha.tolist(), strict=True)]
    if config.bias:
        x[0] += model.user_bias_U1[f["user_B"]].item() if f["user_B"] >= 0 else 0
        x[0] += model.item_bias_I1[f["item_B"]].item() if f["item_B"] >= 0 else 0
    return x[0]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_logits_equal_the_equations_in_loops(option, typed):
    model = model_of(graph_of(typed=typed), **OPTIONS[option])
    features = everything(model)
    expected = [literal_logit(model, one(features, row)) for row in range(len(features))]
    assert model.logits(features).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_the_features_of_the_drawing():
    f = graph_of().macro.features(np.array([0]), np.array([1]))
    assert f.user_hop1_BQ.tolist() == [[2, 1, 0]]
    assert f.user_hop2_BP.tolist() == [[2 * 2 + 1 * 2, 0]]
    assert f.user_recent_BR.tolist() == [[0, 1, 0]]
    assert f.item_hop1_BP.tolist() == [[2, 0]]
    assert f.item_recent_BR.tolist() == [[1, 0, -1]]


def test_macro_weights_by_hand():
    # log(count + 1) / 2 = 0, log(4) / 2 = log 2, log(16) / 2 = log 4: shares of 1, 2 and 4.
    counts = torch.tensor([[0.0, 3.0, 15.0]], dtype=torch.float64)
    assert model_of(tau=2.0).macro_weights(counts).tolist()[0] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert model_of(tau=2.0, mask_empty=True).macro_weights(counts).tolist()[0] == pytest.approx([0, 1 / 3, 2 / 3])
    assert model_of(tau=2.0, temperature=False).macro_weights(counts).tolist()[0] == pytest.approx(
        [1 / 21, 4 / 21, 16 / 21]
    )
    assert model_of(macro_weights=False).macro_weights(counts).tolist()[0] == [1, 1, 1]
    assert model_of(mask_empty=True).macro_weights(0 * counts).tolist()[0] == [0, 0, 0]


# --- options ---------------------------------------------------------------------------------------------------------


def test_every_option_changes_the_score_and_carries_no_dead_parameter():
    plain = model_of()
    scores = {}
    for option, settings in OPTIONS.items():
        model = model_of(**settings)
        shared = {name: value for name, value in plain.state_dict().items() if "readout" not in name}
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in shared.items() if k in model.state_dict()}})
        features = everything(model)
        scores[option] = model.logits(features).detach()
        model.train()
        labels = torch.arange(len(features), dtype=torch.float64) % 2
        model.losses(ImpressionBatch(features, labels, torch.Generator()))["bce"].backward()
        dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.count_nonzero()]
        assert not dead, (option, dead)
    different = [(a, b) for a in scores for b in scores if a < b and torch.allclose(scores[a], scores[b])]
    assert not different, different


def test_attention_of_the_paper_learns_and_that_of_the_released_code_is_not_there():
    model = model_of().train()
    features = everything(model)
    model.logits(features).square().sum().backward()
    for mna in (model.of_users, model.of_items):
        assert mna.query_DA.grad.abs().max() > 1e-4
        assert mna.key_DA.grad.abs().max() > 1e-4
    released = dict(model_of(attention="released").named_parameters())
    assert not any("query" in name or "key" in name for name in released)


def test_gradients_equal_differences():
    model = model_of(own_group=True, bias=True, hidden=(3,)).train()
    features = everything(model)
    names, values = zip(*model.named_parameters(), strict=True)

    def logits(*parameters):
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        return torch.func.functional_call(model, {**dict(zip(names, parameters, strict=True)), **buffers}, (features,))

    model.forward = model.logits
    torch.autograd.gradcheck(logits, tuple(v.detach().requires_grad_() for v in values), rtol=1e-4, atol=1e-6)


def test_left_out_parts_have_no_parameters():
    few = {name.partition(".")[0] for name, _ in model_of(hop2=False, item_side=False).named_parameters()}
    assert few == {"users_UD", "items_ID", "item_groups_QD", "of_items", "readout"}
    width = {option: model_of(**s).readout.layers[0].in_features for option, s in OPTIONS.items()}
    assert width["paper"] == 14 * 3
    assert width["no recents"] == width["no hop 2"] == 10 * 3
    assert width["no item side"] == 8 * 3
    assert width["no hop 2, no item side"] == 6 * 3


def test_dropout_is_drawn_from_the_batch_and_only_in_training():
    model = model_of(dropout=0.5).train()
    features = everything(model)
    labels = torch.ones(len(features), dtype=torch.float64)

    def loss(seed):
        return model.losses(ImpressionBatch(features, labels, torch.Generator().manual_seed(seed)))["bce"].item()

    assert loss(1) == loss(1) != loss(2)
    model.eval()
    assert loss(1) == loss(2)


@pytest.mark.parametrize(
    "settings", [{"tau": 0.0}, {"tau": -1.0}, {"tau": math.inf}, {"dim": 0}, {"hidden": (0,)}, {"dropout": 1.0}]
)
def test_values_outside_their_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        MODEL.Config(**settings)


# --- corners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("tau", [1e-3, 1.9])
def test_anything_that_a_log_may_hold_stays_finite(option, tau):
    model = model_of(double=False, tau=tau, **OPTIONS[option]).train()
    f = everything(model, double=False)
    huge = replace(f, user_hop1_BQ=f.user_hop1_BQ * 1e9, item_hop2_BQ=f.item_hop2_BQ * 1e9)
    columns = {x.name: getattr(f, x.name) for x in fields(f)}
    zeros = {name: torch.zeros_like(value) for name, value in columns.items() if value.is_floating_point()}
    padding = {name: torch.full_like(value, -1) for name, value in columns.items() if "recent" in name}
    nothing = replace(f, **zeros, **padding)
    for features in (f, huge, nothing, one(f, 0), one(nothing, 3)):
        labels = torch.ones(len(features))
        model.zero_grad()
        loss = model.losses(ImpressionBatch(features, labels, torch.Generator()))["bce"]
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_node_without_a_row_has_no_embedding_and_moves_none():
    model = model_of()
    f = everything(model)
    beyond = replace(
        f,
        user_B=f.user_B.where(f.user_B >= 0, N_USERS),
        user_recent_BR=f.user_recent_BR.where(f.user_recent_BR >= 0, N_ITEMS + 5),
    )
    assert torch.equal(model.logits(beyond), model.logits(f))
    cold = (f.user_B == -1) & (f.item_B == -1)
    model.logits(f.take(cold.nonzero().squeeze(1))).sum().backward()
    assert not model.users_UD.grad.count_nonzero()
    assert not model.items_ID.grad.count_nonzero()


def test_padding_takes_no_part():
    model = model_of()
    f = everything(model)
    wider = torch.cat([torch.full((len(f), 2), -1), f.user_recent_BR, torch.full((len(f), 1), -1)], 1)
    torch.testing.assert_close(model.logits(replace(f, user_recent_BR=wider)), model.logits(f))
    shuffled = f.user_recent_BR.flip(1)
    torch.testing.assert_close(model.logits(replace(f, user_recent_BR=shuffled)), model.logits(f))


def test_a_score_does_not_depend_on_its_batch_mates():
    model = model_of(double=False)
    f = everything(model, double=False)
    alone = torch.cat([model.logits(one(f, row)) for row in range(len(f))])
    torch.testing.assert_close(alone, model.logits(f), rtol=1e-5, atol=1e-6)


def test_expanded_candidates_score_as_pairs():
    model = model_of(double=False)
    items = np.arange(N_ITEMS)
    pairs = model.macro.features(np.zeros(N_ITEMS, np.int64), items)
    torch.testing.assert_close(model.logits(model.macro.candidates(0, items)), model.logits(pairs))


# --- reasons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_reasons_add_up_to_the_logit(option, typed):
    model = model_of(graph_of(typed=typed), double=False, **OPTIONS[option])
    f = everything(model, double=False)
    logits = model.logits(f)
    for row in range(len(f)):
        reasons = model.reasons(one(f, row))
        assert reasons.logit == pytest.approx(logits[row].item(), rel=1e-5, abs=1e-4)
        assert reasons.total == pytest.approx(reasons.logit, abs=1e-4)


def test_reasons_name_every_neighbour():
    model = model_of(double=False)
    features = model.macro.features(np.array([0]), np.array([1]))
    reasons = model.reasons(features)
    found = {(r.side, r.via, r.kind): [] for r in reasons.neighbours}
    for reason in reasons.neighbours:
        found[reason.side, reason.via, reason.kind].append((reason.number, reason.count))
    assert found == {
        ("user", "hop 1", "item group"): [(0, 2), (1, 1), (2, 0)],
        ("item", "hop 2", "item group"): [(0, 3), (1, 2), (2, 0)],
        ("user", "recent", "item"): [(0, 1), (1, 1), (0, 1)],
        ("user", "hop 2", "user group"): [(0, 6), (1, 0)],
        ("item", "hop 1", "user group"): [(0, 2), (1, 0)],
        ("item", "recent", "user"): [(1, 1), (0, 1)],
    }
    hop1 = [r for r in reasons.neighbours if (r.side, r.via) == ("user", "hop 1")]
    assert [r.weight for r in hop1] == pytest.approx(softmax([math.log(c + 1) / 1.9 for c in (2, 1, 0)]), rel=1e-5)
    assert sum(r.attention for r in hop1) == pytest.approx(1)
    masked = model_of(double=False, mask_empty=True).reasons(features)
    assert all(r.count > 0 for r in masked.neighbours)


def test_reasons_of_typed_edges_name_the_type():
    model = model_of(graph_of(typed=True), double=False)
    reasons = model.reasons(model.macro.features(np.array([0]), np.array([1])))
    hop1 = [(r.number, r.type, r.count) for r in reasons.neighbours if (r.side, r.via) == ("user", "hop 1")]
    assert hop1 == [(0, 0, 2), (1, 0, 0), (2, 0, 0), (0, 1, 0), (1, 1, 1), (2, 1, 0)]


def test_shares_of_a_linear_readout_are_exact():
    """Without hidden layers the logit is linear: a share is the neighbour's own term."""
    model = model_of(hidden=())
    features = cast(model.macro.features(np.array([1]), np.array([2])))
    reasons = model.reasons(features)
    assert reasons.base == pytest.approx(model.readout.layers[0].bias.item())
    weight = model.readout.layers[0].weight[0]
    assert reasons.user == pytest.approx((model.users_UD[1] @ weight[:3]).item(), rel=1e-5)
    assert reasons.item == pytest.approx((model.items_ID[2] @ weight[3:6]).item(), rel=1e-5)
    first = reasons.neighbours[0]
    vector = first.weight * first.attention * model.item_groups_QD[0] @ model.of_items.value_DA
    assert first.contribution == pytest.approx((vector @ weight[6:12]).item(), rel=1e-5)
