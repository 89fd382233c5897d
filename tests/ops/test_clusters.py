import numpy as np
import pytest
import torch
from tests.models.conftest import graph_from

from macrorec.api import PairBatch
from macrorec.models.ccbie import MODEL
from macrorec.ops.adam_kernels import catch_up
from macrorec.ops.clusters import BETAS, EPS, _fade
from macrorec.ops.tile_kernels import add

SIZES = {"dim": 21, "hidden": 18, "n_clusters": 17, "n_preferences": 5, "n_negatives": 3}
VARIANTS = [
    {},
    {"variant": "explicit"},
    {"variant": "implicit"},
    {"variant": "no-mlp"},
    {"variant": "softmax"},
    {"activation": "tanh", "over": "mean"},
    {"activation": "sigmoid", "spread": "raw", "dim": 48, "hidden": 32, "n_clusters": 32, "n_preferences": 16},
    {"activation": "none", "alpha": 0.2, "negative_weight": 0.3},
]
N_USERS, N_ITEMS = 300, 170


def model_of(**settings):
    config = MODEL.Config(**(SIZES | {"beta": 0.02} | settings))
    model = MODEL.from_graph(config, graph_from([[1] * N_ITEMS] * N_USERS), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in model.parameters():  # biases included; scaled up so that units saturate here and there
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.add_(0.5 * noise)
    return model


def batches(n, size, n_negatives=3, seed=0, n_users=N_USERS):
    random = np.random.default_rng(seed)
    for _ in range(n):
        users = torch.from_numpy(random.integers(0, n_users, size))
        others = torch.from_numpy(random.integers(0, N_ITEMS, (size, 1 + n_negatives)))
        yield PairBatch(users, others[:, 0].contiguous(), others[:, 1:].contiguous(), torch.Generator())


def by_torch(model, given, *, weight_decay=0.0, lr=0.01):
    """Losses of every step, by autograd and ``torch.optim.Adam``."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    losses = []
    for batch in given:
        terms = model.losses(batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        losses.append([term.item() for term in terms.values()])
    return losses


def own(model, *, weight_decay=0.0, lr=0.01):
    optimizer = model.optimizer("adam", lr=lr, weight_decay=weight_decay, clip_norm=None)
    assert optimizer is not None
    return optimizer


def by_steps(model, given, optimizer):
    losses = []
    for batch in given:
        terms = model.training_step(batch, lambda _: pytest.fail("the model steps by itself"))
        losses.append([term.item() for term in terms.values()])
    return losses


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.001])
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_steps_equal_autograd_and_the_adam_of_torch(settings, weight_decay):
    """To rounding, for as long as rounding stays small; half of the rows are in no batch but every second one."""
    expected, got = model_of(**settings), model_of(**settings)
    given = list(batches(25, 70))
    losses = by_torch(expected, given, weight_decay=weight_decay)
    found = by_steps(got, given, own(got, weight_decay=weight_decay))
    np.testing.assert_allclose(found, losses, rtol=2e-5, atol=1e-6)
    got.eval()
    for name, value in expected.state_dict().items():
        difference = (got.state_dict()[name] - value).abs()
        assert difference.median() < 2e-6, name
        assert difference.max() < 3e-3, name  # a third of one step: Adam turns a gradient's sign into a whole one


def test_a_table_that_is_read_by_few_batches_ends_where_the_adam_of_torch_ends():
    expected, got = model_of(), model_of()
    given = [batch for seed in range(4) for batch in batches(15, 16, n_users=4 + 90 * seed, seed=seed)]
    by_torch(expected, given)
    optimizer = own(got)
    by_steps(got, given, optimizer)
    late = optimizer.state[got.users_UD]["last"]
    assert late[4:].min() < 40, "rows wait"
    got.eval()
    assert late[late > 0].min() == 60, "and are caught up"
    assert (got.users_UD - expected.users_UD).abs().median() < 2e-6
    before = state(got)
    got.eval()
    assert all(torch.equal(value, before[name]) for name, value in got.state_dict().items()), "once"


@pytest.mark.parametrize("since", [1, 7, 5_000])
@pytest.mark.parametrize("missed", [1, 2, 40, 3_000])
def test_missed_steps_as_one_are_the_sum_of_steps_without_a_gradient(since, missed):
    random = np.random.default_rng(0)
    beta1, beta2 = BETAS
    table = random.normal(size=(3, 8))
    square = 10.0 ** random.uniform(-12, 1, (3, 8))
    moment = random.normal(size=(3, 8)) * np.sqrt(square)
    expected, m, v = table.copy(), moment.copy(), square.copy()
    for step in range(since + 1, since + missed + 1):
        m, v = beta1 * m, beta2 * v
        expected -= 0.01 * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + EPS)
    numbers = np.array([0, 0, 0.01, *BETAS, EPS, 0, since + missed, 1, 1, 0, 0], np.float64)
    given = [x.astype(np.float32) for x in (table, moment, square)]
    last = np.full(3, since, np.int32)
    catch_up(*given, last, np.arange(3), 0, 3, numbers, _fade(*BETAS))
    share = EPS * np.sqrt((1 - beta2 ** (since + missed)) / square)  # of eps in the denominator, at most
    moved = np.abs(expected - table)
    assert np.all(np.abs(given[0] - expected) <= (1e-5 + share) * moved + 1e-6 * np.abs(table))
    np.testing.assert_allclose(given[1], m, rtol=1e-5, atol=1e-29)
    np.testing.assert_allclose(given[2], v, rtol=1e-5)
    assert (last == since + missed).all()


def test_a_row_that_never_had_a_gradient_stays():
    model = model_of()
    before = state(model)
    by_steps(model, batches(5, 70, n_users=100), own(model))
    model.eval()
    assert torch.equal(model.users_UD[100:], before["users_UD"][100:])
    assert not torch.equal(model.users_UD[:100], before["users_UD"][:100])


@pytest.mark.parametrize("weight_decay", [0.0, 0.001])
def test_threads_change_no_bit(weight_decay):
    given = list(batches(20, 400))
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            model = model_of()
            losses = by_steps(model, given, own(model, weight_decay=weight_decay))
            results.append((losses, state(model.eval())))
    finally:
        torch.set_num_threads(before)
    for losses, values in results[1:]:
        assert losses == results[0][0]
        assert all(torch.equal(value, results[0][1][name]) for name, value in values.items())


def test_more_tiles_than_parts_and_batches_of_any_size():
    """2,000 edges make more tiles than there are sums of gradients; room is made as batches grow."""
    expected, got = model_of(), model_of()
    given = [batch for size in (1, 3, 2000, 64, 5000) for batch in batches(1, size, seed=size)]
    big = [
        PairBatch(
            torch.arange(N_USERS).repeat(20),
            torch.arange(6000) % N_ITEMS,
            torch.arange(18000).view(6000, 3) % N_ITEMS,
            torch.Generator(),
        )
    ]
    losses = by_torch(expected, given + big)
    np.testing.assert_allclose(by_steps(got, given + big, own(got)), losses, rtol=1e-5, atol=1e-6)


def test_goes_on_from_its_state_as_if_nothing_had_happened():
    given = list(batches(20, 70))
    whole, part, rest = (model_of() for _ in range(3))
    losses = by_steps(whole, given, own(whole))
    optimizer = own(part)
    by_steps(part, given[:8], optimizer)
    stored = {
        number: {name: value.clone() for name, value in moments.items()}
        for number, moments in optimizer.state_dict()["state"].items()
    }
    weights = state(part)
    again = own(rest)
    rest.load_state_dict(weights)
    again.load_state_dict({"state": stored})
    assert by_steps(rest, given[8:], again) == losses[8:]
    whole.eval(), rest.eval()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in rest.state_dict().items())


def test_other_settings_of_training_are_left_to_torch():
    for settings in ({"kind": "sgd"}, {"clip_norm": 1.0}):
        model = model_of()
        own(model)
        kind = settings.pop("kind", "adam")
        assert model.optimizer(kind, lr=0.1, weight_decay=0.0, clip_norm=settings.get("clip_norm")) is None
        taken = []
        model.training_step(next(batches(1, 5)), taken.append)
        assert len(taken) == 1
    assert model_of().double().optimizer("adam", lr=0.1, weight_decay=0.0, clip_norm=None) is None


@pytest.mark.parametrize("n_rows", [1, 3, 4, 9])
@pytest.mark.parametrize("n_columns", [16, 32, 48])
def test_products_in_registers(n_rows, n_columns):
    random = np.random.default_rng(1)
    a, b, out = (random.normal(size=shape).astype(np.float32) for shape in ((7, 9), (7, n_columns), (9, n_columns)))
    expected = out.copy()
    expected[:n_rows] += a.T[:n_rows] @ b
    add(out.reshape(-1), 0, n_columns, n_rows, n_columns, a.reshape(-1), 0, 1, 9, b.reshape(-1), 0, n_columns, 7)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
