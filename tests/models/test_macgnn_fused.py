"""MacGNN's compiled loop against its equations in torch, in double precision."""

import threading
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.test_macgnn import N_ITEMS, N_USERS, OPTIONS, cast, graph_of, model_of

from macrorec.data.log import Behavior
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.candidates import Candidates, read
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import TypedMacroGraph
from macrorec.models.bpr import MODEL as BPR
from macrorec.models.macgnn import MODEL

EVERY = np.array([0, 1, 2, 3, -1, N_ITEMS, 2])
"""All items, one without a row, one beyond the tables, one again."""


def expected(model, user, items):
    """The logits by torch, in double precision."""
    exact = MODEL(model.config, Graph(model.n_users, model.n_items, (), (), model.macro)).double().eval()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        return exact.logits(cast(model.macro.candidates(user, items))).numpy()


def assert_close(found, right):
    """To 1e-5 of the largest: single precision adds up some hundred numbers of that size."""
    assert found.dtype == np.float32 and found.shape == right.shape
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5 * np.abs(right).max(initial=1e-3))


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_the_loop_computes_what_torch_does(option, typed):
    for hidden in ((5, 4), (), (6, 5, 3)):
        model = model_of(graph_of(typed=typed), double=False, hidden=hidden, **OPTIONS[option])
        fused = model.fused()
        for user in (-1, *range(N_USERS + 1)):
            assert_close(fused(read(model.macro, user, EVERY)), expected(model, user, EVERY))


def world(seed, *, typed=False, n=300, recents=20, groups=(7, 11), dense=None):
    """A graph of n users and items, of which the last 20 have no group, and 8 events each on average."""
    random = np.random.default_rng(seed)
    of = [np.where(np.arange(n) < n - 20, random.integers(0, k, n), -1).astype(np.int32) for k in groups]
    both = [Groups(*pair) for pair in zip(of, groups, strict=True)]
    events = (n * random.random((2, 8 * n)) ** 2).astype(np.int64)
    weights = random.choice([0.25, 1.0, 3.0], 8 * n).astype(np.float32)
    if typed:
        kind = random.integers(0, 2, 8 * n)
        settings = {"types": ("liked", "not"), "recents": recents, "dense": dense}
        macro = TypedMacroGraph(*both, *events, weights, None, kind, **settings)
    else:
        macro = MacroGraph(*both, *events, weights, recents=recents, pull=20, dense=dense)
    return Graph(n, n, (Behavior(name="buy"),), (edges_of(*events, n, n),), macro)


def trained(graph, seed, **settings):
    """A model whose numbers are as large as those of a trained one, and no two of whose units are alike."""
    generator = torch.Generator().manual_seed(seed)
    model = MODEL.from_graph(MODEL.Config(**settings), graph, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
        for gate in model.readout.gates:
            gate.seen.fill_(0.9)
            gate.running_mean.normal_(generator=generator)
            gate.running_var.uniform_(0.2, 2.0, generator=generator)
    return model.eval()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    option=st.fixed_dictionaries({}, optional={name: st.booleans() for name in (
        "macro_weights", "temperature", "recents", "hop2", "item_side", "mask_empty", "normalise", "own_group",
        "bias", "volumes",
    )} | {"attention": st.sampled_from(["macro", "released"]), "tau": st.sampled_from([0.05, 1.9, 10.0])}),
    typed=st.booleans(),
    dense=st.booleans(),
    shape=st.sampled_from([(1, 20, (7, 11)), (10, 0, (3, 1)), (13, 5, (2, 40))]),
    n=st.sampled_from([1, 3, 31, 224, 225, 300]),
)  # fmt: skip
def test_any_combination_of_options_and_sizes_agrees(seed, option, typed, dense, shape, n):
    dim, recents, groups = shape
    graph = world(seed, typed=typed, recents=recents, groups=groups, dense=dense)
    model = trained(graph, seed, dim=dim, hidden=(20, 9), **option)
    random = np.random.default_rng(seed)
    items = random.integers(-1, 301, n)
    for user in (int(random.integers(0, 300)), -1):
        assert_close(model.fused()(read(model.macro, user, items)), expected(model, user, items))


def test_an_item_scores_alike_to_the_bit_whatever_stands_beside_it():
    model = trained(world(1), 1)
    fused, items = model.fused(), np.arange(300)
    together = fused(read(model.macro, 5, items))
    alone = np.concatenate([fused(read(model.macro, 5, items[n : n + 1])) for n in items])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], fused(read(model.macro, 5, items[::-1])))
    assert fused(read(model.macro, 5, items[:0])).shape == (0,)


def test_counts_of_any_size_stay_finite_and_right():
    for tau in (1e-3, 1.9):
        model = trained(world(2), 2, tau=tau)
        seen = read(model.macro, 5, np.arange(50))
        huge = seen._replace(user_hop1_Q=seen.user_hop1_Q * 1e9, item_hop2_BQ=seen.item_hop2_BQ * 1e20)
        f = model.macro.candidates(5, np.arange(50))
        f = replace(f, user_hop1_BQ=f.user_hop1_BQ * 1e9, item_hop2_BQ=f.item_hop2_BQ * 1e20)
        assert_close(model.fused()(huge), model.logits(f).detach().numpy().astype(float))


def test_what_is_read_are_the_features():
    for typed in (False, True):
        for dense in (False, True):
            macro = world(3, typed=typed, dense=dense).macro
            for user in (-1, 0, 5, 250, 299, 300):
                items = np.array([0, 7, 299, 300, -1, 7])
                seen, f = read(macro, user, items), macro.candidates(user, items)
                assert seen.user.tolist() == [int(f.user_B[0]), int(f.user_group_B[0])]
                for name in Candidates._fields[1:]:
                    column = name if name.startswith("item") else f"{name[:-2]}_B{name[-1]}"
                    right = getattr(f, column).numpy() if name.startswith("item") else getattr(f, column)[0].numpy()
                    assert np.array_equal(getattr(seen, name), right), name


def test_threads_beside_each_other_score_as_one_alone():
    model = trained(world(4), 4)
    fused, seen = model.fused(), [read(model.macro, user, np.arange(300)) for user in range(8)]
    right, wrong = [fused(one) for one in seen], list[int]()

    def work(number):
        for _ in range(30):
            if not np.array_equal(fused(seen[number]), right[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_loop_is_the_model_as_it_was_when_the_loop_was_made():
    model = trained(world(5), 5)
    fused, seen = model.fused(), read(model.macro, 5, np.arange(9))
    before = fused(seen)
    with torch.no_grad():
        model.readout.layers[0].weight.mul_(2)
    assert np.array_equal(fused(seen), before)
    assert not np.allclose(model.fused()(seen), before)


def test_only_models_of_float32_on_the_cpu_have_a_loop_and_none_while_training():
    assert model_of(double=True).fused() is None
    with pytest.raises(AssertionError):
        model_of(double=False).train().fused()
    assert not hasattr(BPR, "fused")
    assert {f.name for f in fields(MODEL.Config)} == {
        "dim", "hidden", "tau", "attention", "macro_weights", "temperature", "recents", "hop2", "item_side",
        "mask_empty", "dropout", "normalise", "own_group", "bias", "volumes",
    }, "a new option must be in the loop, too, or leave the model without one"  # fmt: skip
