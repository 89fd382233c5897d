import pytest
import torch

from macrorec.data.log import Behavior
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph, edges_of

# Item 4 was met by nobody, item 5 only bought; user 4 did nothing, user 3 bought unseen.
VIEW = {(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
CART = {(0, 1), (1, 1), (1, 2), (2, 0), (2, 2)}
BUY = {(1, 0), (1, 2), (2, 1), (3, 0), (3, 5)}


def graph_of(behaviors: dict[str, set], n_users: int = 5, n_items: int = 6) -> Graph:
    *auxiliary, target = behaviors
    schema = (*(Behavior(name=name, role="auxiliary", mask=False) for name in auxiliary), Behavior(name=target))
    edges = (torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2).numpy() for pairs in behaviors.values())
    return Graph(
        n_users, n_items, schema, tuple(edges_of(pairs[:, 0], pairs[:, 1], n_users, n_items) for pairs in edges)
    )


def score_by_loops(behaviors, u, i, *, names=(), rates="item", a=1.0, b=10.0, n_users=5, n_items=6):
    *auxiliary, target = behaviors
    buyers = [sum((v, j) in behaviors[target] for v in range(n_users)) for j in range(n_items)]
    met = {
        (v, j): frozenset(name for name in names or auxiliary if (v, j) in behaviors[name])
        for v in range(n_users)
        for j in range(n_items)
    }
    if not met[u, i] or (u, i) in behaviors[target]:
        return buyers[i] - (max(buyers) + 1)
    if rates == "item":
        return (buyers[i] + a) / (sum(bool(met[v, i]) for v in range(n_users)) + b)
    same = [pair for pair in met if met[pair] == met[u, i]]
    mean = sum(pair in behaviors[target] for pair in same) / len(same)
    here = [pair for pair in same if pair[1] == i]
    return (sum(pair in behaviors[target] for pair in here) + b * mean) / (len(here) + b)


def scores_by_loops(behaviors, n_items=6, **settings):
    return [[score_by_loops(behaviors, u, i, n_items=n_items, **settings) for i in range(n_items)] for u in range(5)]


def test_two_items_by_hand(solved):
    model = solved("retarget", graph_of({"view": VIEW, "cart": CART, "buy": BUY}))
    row = model.score_all(torch.tensor([0]))[0]
    # Item 0: two buyers, met by three; item 1: one buyer, met by three; item 3: none, met by one.
    torch.testing.assert_close(row[[0, 1, 3]], torch.tensor([3 / 13, 2 / 13, 1 / 11]))
    assert row[[2, 4, 5]].tolist() == [-2, -3, -2], "all others by buyers, below"
    assert model.score(torch.tensor([2, 1]), torch.tensor([2, 0])).tolist() == pytest.approx([2 / 12, -1]), "bought"


@pytest.mark.parametrize("names", [(), ("view",), ("cart",), ("cart", "view")])
@pytest.mark.parametrize("rates", ["item", "sets"])
def test_scores_equal_the_literal_rule(solved, names, rates):
    behaviors = {"view": VIEW, "cart": CART, "buy": BUY}
    model = solved("retarget", graph_of(behaviors), behaviors=names, rates=rates, a=0.5, b=3.0)
    expected = scores_by_loops(behaviors, names=names, rates=rates, a=0.5, b=3.0)
    torch.testing.assert_close(model.score_all(torch.arange(5)), torch.tensor(expected))


@pytest.mark.parametrize("rates", ["item", "sets"])
def test_five_behaviors_with_an_empty_one(solved, rates):
    behaviors = {"see": VIEW | {(4, 4)}, "like": {(0, 3), (3, 3)}, "share": set(), "cart": CART, "buy": BUY}
    model = solved("retarget", graph_of(behaviors), rates=rates)
    torch.testing.assert_close(model.score_all(torch.arange(5)), torch.tensor(scores_by_loops(behaviors, rates=rates)))


def test_an_item_viewed_and_carted_has_a_rate_of_its_own(solved):
    # 20 users view items 0 and 1; 10 cart them, too, and buy item 2's likes no more often by item than by set.
    view = {(u, i) for u in range(20) for i in (0, 1)}
    cart = {(u, u % 2) for u in range(20)}
    buy = {(u, u % 2) for u in range(10)}
    graph = graph_of({"view": view, "cart": cart, "buy": buy}, n_users=20, n_items=2)
    by_item, by_sets = (
        solved("retarget", graph, rates=rates).score_all(torch.tensor([19]))[0] for rates in ("item", "sets")
    )
    assert by_item[0] == by_item[1], "as many buyers of as many viewers"
    assert by_sets[1] > by_sets[0] + 0.4, "but all of them had carted it, as user 19 has carted item 1"


def test_new_edges_count_at_once(solved):
    model = solved("retarget", graph_of({"view": VIEW, "cart": CART, "buy": BUY}))
    later = {"view": VIEW | {(4, 3)}, "cart": CART, "buy": BUY | {(0, 0)}}
    model.refresh(graph_of(later))
    torch.testing.assert_close(model.score_all(torch.arange(5)), torch.tensor(scores_by_loops(later)))


def test_without_auxiliary_behaviors_it_is_popularity(solved, drawn, history):
    model = solved("retarget", drawn([[1, 1, 0], [1, 0, 0]]))
    assert model.score_all(torch.tensor([0, 1])).tolist() == [[-1, -2, -3]] * 2
    assert model.fold_in(history([[0, 0, 1]])).tolist() == [[-1, -2, -3]]


def test_an_unknown_behavior_is_refused(solved, drawn):
    with pytest.raises(ConfigError, match="'look' is no auxiliary behaviour; there are view, cart"):
        solved("retarget", graph_of({"view": VIEW, "cart": CART, "buy": BUY}), behaviors=("look",))
    with pytest.raises(ConfigError, match="a >= 0 and b > 0"):
        solved("retarget", drawn([[1]]), b=0.0)
