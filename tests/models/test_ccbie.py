import math

import pytest
import torch

from macrorec.api import PairBatch, RowBatch
from macrorec.errors import ConfigError
from macrorec.models.ccbie import MODEL

ROWS = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
BATCH = ([0, 1, 2, 0], [0, 1, 2, 1], [[2, 2], [0, 2], [1, 0], [2, 1]])
SMALL = {"dim": 5, "hidden": 4, "n_clusters": 3, "n_preferences": 2, "n_negatives": 2}
VARIANTS = [
    {},
    {"variant": "explicit"},
    {"variant": "implicit"},
    {"variant": "no-mlp"},
    {"variant": "softmax"},
    {"activation": "tanh", "alpha": 0.3},
    {"activation": "sigmoid", "over": "mean"},
    {"activation": "none", "spread": "raw", "negative_weight": 0.3},
]


def model_of(graph, **settings):
    config = MODEL.Config(**(SMALL | {"beta": 0.02} | settings))
    model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        for parameter in model.parameters():  # biases included: nothing is at a special value
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return model


def batch_of(users, items, negatives):
    return PairBatch(*map(torch.tensor, (users, items, negatives)), torch.Generator())


# --- the equations as they stand, in plain loops ---------------------------------------------------------------------


def cosine(x, y):
    norm = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / norm


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mlp_by_loops(config, values, side, x):
    if config.variant == "no-mlp":
        return x
    first, bias, second, last = (values[f"{side}.{n}"] for n in range(4))
    gate = {"relu": lambda a: max(a, 0.0), "tanh": math.tanh, "sigmoid": sigmoid, "none": lambda a: a}
    hidden = [
        gate[config.activation](b + sum(w * a for w, a in zip(row, x, strict=True)))
        for row, b in zip(first, bias, strict=True)
    ]
    return [b + sum(w * a for w, a in zip(row, hidden, strict=True)) for row, b in zip(second, last, strict=True)]


def likelihood_by_loops(config, values, i, j):
    """(1) to (8), and (15)."""
    u, v = values["users_UD"][i], values["items_ID"][j]
    explicit = (cosine(u, v) + 1) / 2
    if config.variant == "explicit":
        return explicit
    t_m = mlp_by_loops(config, values, "of_items", [cosine(v, c) for c in values["centres_KD"]])
    p_m = mlp_by_loops(config, values, "of_users", [cosine(u, c) for c in values["centres_KD"]])
    t_o, p_o = [sigmoid(t) for t in t_m], [sigmoid(p) for p in p_m]
    if config.variant == "softmax":
        t_o = [math.exp(t) for t in t_o]
    implicit = sum(p * t / sum(t_o) for p, t in zip(p_o, t_o, strict=True))
    alpha = 0.0 if config.variant == "implicit" else config.alpha
    return alpha * explicit + (1 - alpha) * implicit


def losses_by_loops(config, values, users, items, negatives):
    """(10) to (12)."""
    squares = []
    for i, j, drawn in zip(users, items, negatives, strict=True):
        squares.append((1 - likelihood_by_loops(config, values, i, j)) ** 2)
        weight = config.negative_weight
        squares += [weight * likelihood_by_loops(config, values, i, other) ** 2 for other in drawn]
    terms = {"structure": sum(squares) / (len(squares) if config.over == "mean" else 1)}
    if config.variant == "explicit":
        return terms
    centres = values["centres_KD"]
    if config.spread == "sphere":
        centres = [[a / math.sqrt(sum(b * b for b in c)) for a in c] for c in centres]
    apart = sum(
        (a - b) ** 2 for i, c in enumerate(centres) for d in centres[i + 1 :] for a, b in zip(c, d, strict=True)
    )
    return terms | {"clusters": -config.beta * apart}


def values_of(model):
    return {name: parameter.tolist() for name, parameter in model.named_parameters()}


# --- the tests -------------------------------------------------------------------------------------------------------


def test_one_pair_by_hand(drawn):
    # cos(u, v) = 3/5: (1) is .8. With centres e_1 and e_2, T = (3/5, 4/5) and P = (1, 0); without MLPs, T^V is
    # sigmoid(T) over its sum and P^O sigmoid(P); |e_1 - e_2|^2 = 2.
    model = model_of(drawn([[1]]), variant="no-mlp", dim=2, n_clusters=2, n_negatives=1, beta=0.5)
    with torch.no_grad():
        model.users_UD[0] = torch.tensor([2.0, 0.0])
        model.items_ID[0] = torch.tensor([3.0, 4.0])
        model.centres_KD[:] = torch.tensor([[0.5, 0.0], [0.0, 7.0]])
    t = [sigmoid(0.6), sigmoid(0.8)]
    y = 0.7 * 0.8 + 0.3 * (sigmoid(1) * t[0] + 0.5 * t[1]) / sum(t)
    assert model.score(torch.tensor([0]), torch.tensor([0])).item() == pytest.approx(y)
    terms = model.losses(batch_of([0], [0], [[0]]))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"structure": (1 - y) ** 2 + y**2, "clusters": -0.5 * 2}
    )


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_inner_product_is_equation_8(drawn, settings):
    model = model_of(drawn(ROWS), **settings)
    users_UZ, items_IZ = model.encode()
    values = values_of(model)
    expected = [[likelihood_by_loops(model.config, values, i, j) for j in range(3)] for i in range(3)]
    assert (users_UZ @ items_IZ.T).tolist() == [pytest.approx(row, abs=1e-14) for row in expected]
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    assert model.score(*pairs).view(3, 3).tolist() == [pytest.approx(row, abs=1e-14) for row in expected]
    assert all(0 <= y <= 1 for row in expected for y in row)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_losses_and_gradients_equal_the_literal_losses(drawn, settings):
    model = model_of(drawn(ROWS), **settings)
    values = values_of(model)
    terms = model.losses(batch_of(*BATCH))
    expected = losses_by_loops(model.config, values, *BATCH)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)

    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        slopes = parameter.grad.view(len(parameter), -1).tolist()
        rows = values[name] if parameter.ndim == 2 else [values[name]]
        for row, slope in zip(rows, slopes if parameter.ndim == 2 else [parameter.grad.tolist()], strict=True):
            for d, before in enumerate(row):
                ends = []
                for step in (1e-6, -1e-6):
                    row[d] = before + step
                    ends.append(sum(losses_by_loops(model.config, values, *BATCH).values()))
                row[d] = before
                assert slope[d] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8), (name, d)


def whole_by_loops(config, values, rows, users):
    """(10) over all pairs, (11): what each pair that is no edge weighs is as if N were drawn, or by powers of that."""
    n_items, degree = len(rows[0]), [sum(column) for column in zip(*rows, strict=True)]
    a = [(1 + d) ** config.by_item for d in degree]
    lacking = [sum(a[i] for i in range(n_items) if not row[i]) for row in rows]
    mean = sum(degree) / sum(weight for row, weight in zip(rows, lacking, strict=True) if any(row))
    total, n_edges = 0.0, 0
    for u in users:
        n_edges += sum(rows[u])
        per_pair = mean * (sum(rows[u]) / lacking[u] / mean) ** config.by_user
        for i in range(n_items):
            y = likelihood_by_loops(config, values, u, i)
            weight = config.n_negatives * config.negative_weight * per_pair * a[i]
            total += (1 - y) ** 2 if rows[u][i] else weight * y**2
    return total / (n_edges * (1 + config.n_negatives) if config.over == "mean" else 1)


@pytest.mark.parametrize("by", [{}, {"by_user": 0.0}, {"by_user": 0.6, "by_item": 0.4}], ids=str)
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_all_pairs_instead_of_drawn_ones_equal_the_literal_sum(drawn, settings, by):
    model = model_of(drawn(ROWS), negatives="all", **settings, **by)
    batch = RowBatch(torch.tensor([2, 0]), torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), torch.Generator())
    terms = model.losses(batch)
    expected = whole_by_loops(model.config, values_of(model), ROWS, [2, 0])
    assert terms["structure"].item() == pytest.approx(expected, rel=1e-6)  # weights are single
    assert set(terms) == ({"structure"} if model.config.variant == "explicit" else {"structure", "clusters"})


def test_a_user_without_an_edge_scores_as_the_others_do_on_average(drawn):
    graph = drawn([*ROWS, [0, 0, 0]])
    model = model_of(graph)
    every, (preference_UQ, _) = model.score_all(torch.arange(4)), model.clusters()
    torch.testing.assert_close(every[3], every[:3].mean(0))
    torch.testing.assert_close(preference_UQ[3], preference_UQ[:3].mean(0))
    users, items = torch.tensor([3, 0, 3]), torch.tensor([1, 1, 2])
    torch.testing.assert_close(model.score(users, items), every[users, items])

    as_started = model_of(graph, cold="random")
    values = values_of(as_started)
    expected = [likelihood_by_loops(as_started.config, values, 3, i) for i in range(3)]
    assert as_started.score_all(torch.tensor([3])).tolist() == [pytest.approx(expected)]
    assert model_of(drawn([[0, 0], [0, 0]])).score_all(torch.arange(2)).isfinite().all()


def test_clusters_are_the_preferences_and_assignments_that_score(drawn):
    model = model_of(drawn(ROWS), variant="implicit")
    preference_UQ, assignment_IQ = model.clusters()
    assert preference_UQ.shape == assignment_IQ.shape == (3, 2)
    assert not preference_UQ.requires_grad and not assignment_IQ.requires_grad
    assert assignment_IQ.sum(1).tolist() == pytest.approx([1, 1, 1])
    torch.testing.assert_close(preference_UQ @ assignment_IQ.T, model.score_all(torch.arange(3)))
    assert model_of(drawn(ROWS), variant="explicit").clusters() is None


def test_centres_as_printed_grow_without_bound_and_on_the_sphere_do_not(drawn):
    norms = {}
    for spread in ("raw", "sphere"):
        model = model_of(drawn(ROWS), spread=spread, beta=1.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(50):
            optimizer.zero_grad()
            sum(model.losses(batch_of(*BATCH)).values()).backward()
            optimizer.step()
        norms[spread] = model.centres_KD.norm(dim=1).min().item()
        if spread == "sphere":  # K centres are furthest apart where they sum to zero: K^2 in all
            assert -model.disentangle().item() == pytest.approx(9, rel=1e-3)
    assert norms["raw"] > 3 * norms["sphere"]


def test_a_term_without_weight_is_left_out(drawn):
    assert set(model_of(drawn(ROWS), beta=0.0).losses(batch_of(*BATCH))) == {"structure"}
    assert not hasattr(model_of(drawn(ROWS), variant="explicit"), "centres_KD")


def test_tables_centres_and_matrices_start_as_xavier_has_it_and_biases_at_zero(drawn):
    model = MODEL.from_graph(MODEL.Config(), drawn(ROWS), torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        if parameter.ndim == 1:
            assert not parameter.any()
        else:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.9 * bound < parameter.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"hidden": 6}, "dim >= hidden >= n_clusters >= n_preferences >= 1.*dim 5, hidden 6"),
        ({"n_clusters": 5}, "hidden 4, n_clusters 5"),
        ({"n_preferences": 0}, "n_preferences 0"),
        ({"variant": "no-mlp", "n_clusters": 6}, "dim >= n_clusters >= 1.*dim 5, n_clusters 6$"),
        ({"variant": "explicit", "dim": 0}, "dim 0"),
        ({"alpha": 1.1}, "alpha"),
        ({"beta": -1.0}, "beta"),
        ({"negative_weight": 0.0}, "negative_weight"),
        ({"negatives": "all", "by_user": 1.5}, "by_user, by_item must lie in"),
        ({"negatives": "all", "by_item": -0.1}, "by_user, by_item must lie in"),
        ({"by_item": 0.5}, "set negatives to 'all'"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=line) as caught:
        MODEL.Config(**(SMALL | settings))
    assert "\n" not in str(caught.value)


def test_what_a_variant_does_not_have_is_not_checked():
    MODEL.Config(variant="no-mlp", dim=8, n_clusters=8)
    MODEL.Config(variant="explicit", dim=8)
