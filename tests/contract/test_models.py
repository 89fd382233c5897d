"""What must hold for every model, whatever it computes. A new file in ``models/`` is tested here without any edit."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load, save
from tests.contract.boards import checkerboard, corners, fitted, fresh, log_of, scores, state, with_labels

from macrorec import configs, models
from macrorec.api import ItemLinear, Model, Ranker, TwoTower
from macrorec.graph.bipartite import Graph, build, edges_of
from macrorec.graph.features import macro_of
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.train.config import TrainConfig
from macrorec.train.sampling import sampler

SHORT = TrainConfig(epochs=3, batch_size=16, lr=0.02)
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def first_batch(model: Model, log, seed=0):
    return next(sampler(model.batches, build(log), 32, seed=seed, labelled=with_labels(log)).epoch(0))


def leaves(value: torch.Tensor) -> set[torch.Tensor]:
    """The tensors at which the autograd graph of ``value`` ends."""
    found, seen, queue = set(), set(), [value.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        queue.extend(parent for parent, _ in node.next_functions)
    return found


# --- learning --------------------------------------------------------------------------------------------------------


def test_gradients_end_in_registered_parameters_and_reach_them_all(kind):
    log = corners()
    model = fresh(kind, build(log))
    registered = dict(model.named_parameters())
    if model.batches is None:
        assert not registered, "a model in closed form keeps what it learned in buffers"
        return
    reached = set()
    for name, term in model.losses(first_batch(model, log)).items():
        assert term.shape == (), name
        ends = leaves(term)
        assert ends, f"{name} depends on no parameter"
        assert ends <= set(registered.values()), f"{name} depends on a tensor that is no registered parameter"
        own = [(key, value) for key, value in registered.items() if value in ends]
        gradients = torch.autograd.grad(term, [value for _, value in own], retain_graph=True)
        for (key, _), gradient in zip(own, gradients, strict=True):
            assert gradient.isfinite().all(), (name, key)
            if gradient.count_nonzero():
                reached.add(key)
    assert reached == set(registered), "parameters that no term moves"


def test_checkerboard_is_learned(kind):
    log, labelled = checkerboard()
    model, graph, _ = fitted(kind, log, labelled=labelled)
    value = scores(model)
    user, item = torch.meshgrid(torch.arange(graph.n_users), torch.arange(graph.n_items), indexing="ij")
    others = torch.where((user - item) % 2 == 1, value, -torch.inf).max(1).values
    assert (value.diagonal() > others).all(), "every user prefers the held-out item of its colour to all of the other"


def test_losses_are_the_same_whatever_else_was_computed(kind):
    log = corners()
    model = fresh(kind, build(log))
    if model.batches is None:
        with pytest.raises(NotImplementedError):
            model.losses(None)
        return
    before = model.losses(first_batch(model, log))
    scores(model)
    after = model.losses(first_batch(model, log))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_same_seed_same_history_another_seed_another(kind):
    log = corners()
    model, _, history = fitted(kind, log, config=SHORT)
    again, _, history_again = fitted(kind, log, config=SHORT)
    assert history.without_times() == history_again.without_times()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    if model.batches is not None:
        _, _, history_other = fitted(kind, log, seed=1, config=SHORT)
        assert history.without_times() != history_other.without_times()


@pytest.mark.parametrize("corner", ["single behaviour", "empty auxiliary behaviour"])
def test_odd_logs_stay_finite(kind, corner):
    log = corners()
    buys = np.stack([log.user, log.item], 1)[log.behavior == log.target]
    log = log_of(14, 11, *([np.empty((0, 2), dtype=int)] if corner.startswith("empty") else []), buys)
    model, _, history = fitted(kind, log, config=SHORT)
    assert scores(model).isfinite().all()
    assert all(np.isfinite(value) for record in history.epochs for value in record["losses"].values())


def test_isolated_users_and_items_stay_finite(kind):
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    degree_U, degree_I = graph.target.degrees(graph.n_items)
    value = scores(model)
    assert (degree_U == 0).any()
    assert (degree_I == 0).any()
    assert value.isfinite().all()


# --- scoring ---------------------------------------------------------------------------------------------------------


def test_score_is_the_inner_product_of_encode(kind):
    if not issubclass(kind, TwoTower):
        assert not hasattr(kind, "encode"), "a model with encode is a TwoTower"
        return
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    with torch.no_grad():
        users_UD, items_ID = model.encode()
    assert users_UD.shape[0] == graph.n_users
    assert items_ID.shape == (graph.n_items, users_UD.shape[1])
    torch.testing.assert_close(scores(model), users_UD @ items_ID.T)


def test_score_all_is_score_on_every_pair(kind, monkeypatch):
    monkeypatch.setattr("macrorec.api._SCORES_AT_ONCE", 40)
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    mixed = torch.randperm(graph.n_users * graph.n_items, generator=torch.Generator().manual_seed(0))
    users, items = mixed // graph.n_items, mixed % graph.n_items
    with torch.no_grad():
        pairs = model.score(users, items)
    torch.testing.assert_close(pairs, scores(model)[users, items])


def test_a_batch_of_one_is_a_row_of_a_batch(kind):
    model, _, _ = fitted(kind, corners(), config=SHORT)
    whole = scores(model)
    with torch.no_grad():
        rows = [model.score_all(torch.tensor([user])) for user in range(model.n_users)]
        none = model.score_all(torch.arange(0))
        mixed = model.score_all(torch.tensor([5, 0, 5]))
    torch.testing.assert_close(torch.cat(rows), whole)
    torch.testing.assert_close(mixed, whole[[5, 0, 5]])
    assert none.shape == (0, model.n_items)


def test_evaluation_leaves_the_model_unchanged(kind):
    model, _, _ = fitted(kind, corners(), config=SHORT)
    assert not model.training
    before = state(model)
    first, second = scores(model), scores(model)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_permuting_ids_permutes_scores(kind):
    """For models that are learned: of the initial weights, permuted along; training draws by number."""
    log = corners()
    graph = build(log)
    random = np.random.default_rng(3)
    user_to, item_to = random.permutation(graph.n_users), random.permutation(graph.n_items)
    pairs = [
        np.stack([user_to[log.user], item_to[log.item]], 1)[log.behavior == behavior]
        for behavior in range(len(log.behaviors))
    ]
    moved_graph = build(log_of(graph.n_users, graph.n_items, *pairs))
    if issubclass(kind, Ranker):
        graph = dataclasses.replace(graph, macro=macro_of(graph))
        events = (moved_graph.target.user_E.numpy(), moved_graph.target.item_E.numpy())
        macro = MacroGraph(moved_groups(graph.macro.users, user_to), moved_groups(graph.macro.items, item_to), *events)
        moved_graph = dataclasses.replace(moved_graph, macro=macro)
    model, moved = fresh(kind, graph), fresh(kind, moved_graph)
    if model.batches is None:
        model.solve(graph, torch.Generator().manual_seed(0))
        moved.solve(moved_graph, torch.Generator().manual_seed(0))
    to = {graph.n_users: torch.from_numpy(user_to), graph.n_items: torch.from_numpy(item_to)}
    to[graph.n_nodes] = torch.cat([to[graph.n_users], graph.n_users + to[graph.n_items]])
    targets = dict(moved.named_parameters())
    with torch.no_grad():
        for name, value in model.named_parameters():
            rows = to.get(len(value)) if value.ndim else None
            targets[name][rows if rows is not None else ...] = value
    expected = scores(model.eval())
    torch.testing.assert_close(scores(moved.eval())[user_to][:, item_to], expected, rtol=1e-4, atol=1e-5)


def moved_groups(groups: Groups, to: np.ndarray) -> Groups:
    of_N = np.empty_like(groups.of_N)
    of_N[to] = groups.of_N
    return dataclasses.replace(groups, of_N=of_N)


def test_a_ranker_scores_what_the_macro_graph_holds_now(kind):
    if not issubclass(kind, Ranker):
        return
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    before, user, item = scores(model), np.array([3]), np.array([6])
    model.refresh(dataclasses.replace(graph, macro=macro_of(graph)))
    assert torch.equal(scores(model), before), "an equal macro graph, equal scores"
    model.macro.add(user, item)
    with torch.no_grad():
        now = model.logits(model.macro.features(user, item))
        torch.testing.assert_close(scores(model)[user, item], now)
        torch.testing.assert_close(model.score(torch.tensor([3]), torch.tensor([6])), now)
    if getattr(model.config, "fields", "macro") == "ids":
        assert torch.equal(scores(model), before)
    else:
        assert not torch.equal(scores(model), before)


def test_a_ranker_scores_nodes_without_a_row_of_their_own(kind):
    if not issubclass(kind, Ranker):
        return
    model, _, _ = fitted(kind, corners(), config=SHORT)
    beyond = model.macro.features(np.array([2, -1, 999]), np.array([-1, 4, 999]))
    late = dataclasses.replace(beyond, user_B=torch.tensor([2, 999, 999]), item_B=torch.tensor([999, 4, 999]))
    with torch.no_grad():
        assert model.logits(beyond).isfinite().all()
        assert torch.equal(model.logits(late), model.logits(beyond)), "beyond the tables is as good as unknown"


# --- new users -------------------------------------------------------------------------------------------------------


def test_fold_in_scores_each_new_user_alone(kind):
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    histories = [[0, 3, 4], [], [7]]
    user = np.repeat(np.arange(3), [len(h) for h in histories])
    item = np.concatenate(histories).astype(np.int64)
    with torch.no_grad():
        together = model.fold_in(edges_of(user, item, 3, graph.n_items))
        alone = [
            model.fold_in(edges_of(np.zeros(len(h), np.int64), np.array(h, np.int64), 1, graph.n_items))
            for h in histories
        ]
    assert together.shape == (3, graph.n_items)
    assert together.isfinite().all()
    torch.testing.assert_close(torch.cat(alone), together)


def test_fold_in_of_a_colour_prefers_that_colour(kind):
    log, labelled = checkerboard()
    model, graph, _ = fitted(kind, log, labelled=labelled)
    with torch.no_grad():
        value = model.fold_in(edges_of(np.zeros(3, np.int64), np.array([0, 4, 10]), 1, graph.n_items))[0]
    unseen_even = [item for item in range(0, graph.n_items, 2) if item not in (0, 4, 10)]
    assert value[unseen_even].min() > value[1::2].max()


def test_contributions_sum_to_the_score(kind):
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    start, item_E = graph.target.start_U, graph.target.item_E
    value = scores(model)
    for user in range(graph.n_users):
        own = item_E[start[user] : start[user + 1]]
        for item in range(graph.n_items):
            with torch.no_grad():
                shares = model.contributions(own, item)
            if shares is None:
                assert not isinstance(model, ItemLinear)
                return
            assert shares.shape == own.shape
            torch.testing.assert_close(shares.sum(), value[user, item], rtol=1e-5, atol=1e-6)


def test_reasons_add_up_to_the_logit(kind):
    if not issubclass(kind, Ranker):
        assert not hasattr(kind, "reasons")
        return
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    for user, item in [(0, 0), (3, 7), (12, 4), (13, 10), (-1, 2), (5, graph.n_items + 1)]:
        features = model.macro.features(np.array([user]), np.array([item]))
        reasons = model.reasons(features)
        if reasons is None:
            return
        with torch.no_grad():
            logit = model.logits(features).item()
        assert reasons.logit == pytest.approx(logit, abs=1e-6)
        assert reasons.total == pytest.approx(logit, abs=1e-4)


# --- storing ---------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_scores_are_equal(kind):
    model, graph, _ = fitted(kind, corners(), config=SHORT)
    stored = save({name: value.contiguous().clone() for name, value in model.state_dict().items()})
    loaded = fresh(kind, graph, seed=9)
    loaded.load_state_dict(load(stored), strict=True)
    assert torch.equal(scores(loaded.eval()), scores(model))


def test_config_round_trip(kind):
    frozen = kind.Config.__dataclass_params__
    assert frozen.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind.Config))
    assert "__slots__" in vars(kind.Config)
    config = kind.Config()
    adapter = TypeAdapter(kind.Config)
    assert adapter.validate_json(adapter.dump_json(config), strict=True) == config
    table = configs.plain_model(config)
    assert table["name"] == models.name_of(kind)
    assert configs.parse_model(table) == config


def test_memory_covers_what_the_model_holds(kind):
    graph: Graph = build(corners())
    model = fresh(kind, graph)
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert kind.memory(kind.Config(), graph) >= held


@ON_CUDA
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_cuda_equals_cpu(kind):
    model, _, _ = fitted(kind, corners(), config=SHORT)
    expected = scores(model)
    model.cuda()
    with torch.no_grad():
        on_gpu = model.score_all(torch.arange(model.n_users, device="cuda"))
    torch.testing.assert_close(on_gpu.cpu(), expected, rtol=1e-4, atol=1e-5)


# --- the declarations themselves -------------------------------------------------------------------------------------


def test_exceptions_name_tests_of_this_file(kind):
    tests = {name.removeprefix("test_") for name in globals() if re.match("test_", name)}
    assert set(kind.exceptions) <= tests
    assert all(len(reason) > 10 for reason in kind.exceptions.values())
