import numpy as np
import pytest
import torch
from tests.models.conftest import graph_from

from macrorec import models
from macrorec.errors import ConfigError

# User 3 only bought; user 4 and item 5 did nothing; user 2 has not carted.
VIEW = [[1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
CART = [[0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
BUY = [[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
NONE = [[0] * 6] * 5


def rank_by_loops(behaviors, user, alpha, beta, n_steps=200):
    """The paper's iteration, both sides from the last step's values, until nothing moves."""
    flow, n_users, n_items = 1 - alpha - beta, len(behaviors[0]), len(behaviors[0][0])
    before_u = before_i = None
    for rows in behaviors:
        size_u = [sum(row) for row in rows]
        size_i = [sum(row[i] for row in rows) for i in range(n_items)]
        query_u = [float(u == user) for u in range(n_users)]
        query_i = [rows[user][i] / max(size_u[user], 1) for i in range(n_items)]
        if before_u is None:
            before_u, before_i = query_u, query_i
        near = {(u, i): (size_u[u] * size_i[i]) ** -0.5 for u in range(n_users) for i in range(n_items) if rows[u][i]}
        r_u, r_i = query_u, query_i
        for _ in range(n_steps):
            next_u = [alpha * q + beta * r for q, r in zip(query_u, before_u, strict=True)]
            next_i = [alpha * q + beta * r for q, r in zip(query_i, before_i, strict=True)]
            for (u, i), weight in near.items():
                next_u[u] += flow * weight * r_i[i]
                next_i[i] += flow * weight * r_u[u]
            r_u, r_i = next_u, next_i
        before_u, before_i = r_u, r_i
    return before_i


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.9), (0.3, 0.6), (0.2, 0.0), (0.1, 0.2), (0.4, 0.6)])
@pytest.mark.parametrize("behaviors", [[BUY], [VIEW, BUY], [VIEW, CART, BUY], [VIEW, CART, NONE, VIEW, BUY]])
def test_scores_equal_the_limit_of_the_papers_iteration(solved, behaviors, alpha, beta):
    model = solved("cascadingrank", graph_from(*behaviors), alpha=alpha, beta=beta, tolerance=1e-7)
    expected = [rank_by_loops(behaviors, user, alpha, beta) for user in range(5)]
    torch.testing.assert_close(model.score_all(torch.arange(5)), torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_scores_equal_the_solution_of_the_dense_system(solved):
    # Per behaviour r = g S r + k, with S the graph of users and items: r = (1 - g S)^-1 k, to 1e-6.
    random = np.random.default_rng(4)
    behaviors = [(random.random((40, 30)) < share).astype(int) for share in (0.3, 0.1, 0.05)]
    model = solved("cascadingrank", graph_from(*behaviors))
    result = np.zeros((70, 40))
    for number, rows in enumerate(behaviors):
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.nan_to_num(rows / np.sqrt(np.outer(rows.sum(1), rows.sum(0))))
            query = np.concatenate([np.eye(40), np.nan_to_num(rows / rows.sum(1, keepdims=True)).T])
        whole = np.block([[np.zeros((40, 40)), near], [near.T, np.zeros((30, 30))]])
        result = np.linalg.solve(np.eye(70) - 0.1 * whole, 0.9 * (result if number else query))
    got = model.score_all(torch.arange(40)).numpy()
    np.testing.assert_allclose(got, result[40:].T, rtol=0, atol=1e-6)


def test_the_number_of_steps_is_what_the_tolerance_asks_for():
    config = models.load("cascadingrank").Config
    assert config().n_steps == 3, "g = .1: (.1^2)^3 = 1e-6"
    assert config(alpha=0.3, beta=0.2, tolerance=1e-3).n_steps == 5, "g = .5: .25^5 < 1e-3 < .25^4"
    assert config(alpha=0.5, beta=0.5).n_steps == 1, "nothing flows"


def test_blocks_of_users_change_nothing(solved, monkeypatch):
    model = solved("cascadingrank", graph_from(VIEW, CART, BUY))
    whole = model.score_all(torch.arange(5))
    monkeypatch.setattr("macrorec.models.cascadingrank._USERS_AT_ONCE", 2)
    torch.testing.assert_close(model.score_all(torch.arange(5)), whole)


def test_a_new_user_flows_from_its_row_through_the_target_behavior(solved, history):
    model = solved("cascadingrank", graph_from(VIEW, BUY), alpha=0.2, beta=0.3, tolerance=1e-7)
    row = [0.5, 0, 0.5, 0, 0, 0]
    near = {(u, i): (sum(BUY[u]) * sum(r[i] for r in BUY)) ** -0.5 for u in range(5) for i in range(6) if BUY[u][i]}
    r_u, r_i = [0.0] * 5, row
    for _ in range(200):
        next_u, next_i = [0.0] * 5, [0.5 * x for x in row]
        for (u, i), weight in near.items():
            next_u[u] += 0.5 * weight * r_i[i]
            next_i[i] += 0.5 * weight * r_u[u]
        r_u, r_i = next_u, next_i
    assert model.fold_in(history([[1, 0, 1, 0, 0, 0]]))[0].tolist() == pytest.approx(r_i, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"alpha": 0.5, "beta": 0.6}, {"beta": 0.0}, {"tolerance": 0.0}])
def test_settings_without_a_limit_are_refused(wrong):
    with pytest.raises(ConfigError, match="cascadingrank needs"):
        models.load("cascadingrank").Config(**wrong)
