import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.eval.small import Table, Vectors, empty_graph, random_mask, slow_top_k

from macrorec.api import Model
from macrorec.errors import ConfigError, DataError
from macrorec.eval.ranking import EvalConfig, device_of, evaluating, top_k
from macrorec.eval.vectors import mask_rows, pack, select_by_key, top_k_vectors


@given(st.data())
def test_top_k_of_any_table_is_the_sorted_row(data):
    """Few distinct scores: ties everywhere; masks may leave fewer than k; k may exceed the catalogue."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    n_users, n_items, k = (data.draw(st.integers(1, top)) for top in (9, 150, 200))
    density = data.draw(st.sampled_from([0.0, 0.3, 0.95, 1.0]))
    block = data.draw(st.sampled_from([None, 1, 3]))
    rng = np.random.default_rng(seed)
    table = rng.choice(np.array([-np.inf, -1.5, -0.0, 0.0, 1e-45, 2.0, np.inf], dtype=np.float32), (n_users, n_items))
    masked = random_mask(rng, n_users, n_items, density)
    users = rng.integers(n_users, size=7)
    pool = None if data.draw(st.booleans()) else rng.integers(n_items, size=data.draw(st.integers(0, 20)))
    expected = slow_top_k(table[users], k, masked[users], pool)
    for got in (
        top_k(Table(table), users, k, masked, block=block, candidates=pool),
        top_k(Table(table), torch.from_numpy(users), k, masked, candidates=pool),
    ):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
    if pool is None:
        keyed = select_by_key(torch.from_numpy(table[users]), k, *mask_rows(masked[users], len(users), None))
        np.testing.assert_array_equal(keyed[0], expected[0])
        np.testing.assert_array_equal(keyed[1], expected[1])


@given(st.data())
def test_top_k_of_integer_vectors_is_the_sorted_product(data):
    """Small integers multiply without rounding: ties are real, and the answer is exact whatever the order of sums."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    n_users, n_items, dim = (data.draw(st.integers(low, top)) for low, top in ((1, 9), (1, 300), (1, 20)))
    k = data.draw(st.sampled_from([1, 5, 20, 400]))
    rng = np.random.default_rng(seed)
    users_BD, items_ID = rng.integers(-2, 3, (n_users, dim)), rng.integers(-2, 3, (n_items, dim))
    masked = random_mask(rng, n_users, n_items, data.draw(st.sampled_from([0.0, 0.5, 1.0])))
    pool = None if data.draw(st.booleans()) else rng.integers(n_items, size=10)
    vectors = torch.tensor(users_BD, dtype=torch.float32), torch.tensor(items_ID, dtype=torch.float32)
    expected = slow_top_k(users_BD @ items_ID.T, k, masked, pool)
    got = top_k_vectors(*vectors, k, masked, candidates=pool)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("spread", [0.0, 2.0], ids=["equal norms", "norms over orders of magnitude"])
def test_no_item_is_lost_to_the_norm_bound(spread):
    """Several tiles of items; with spread norms most tiles are skipped, and the answer is that of a full sort."""
    rng = np.random.default_rng(5)
    users_BD = rng.standard_normal((60, 24)).astype(np.float32)
    items_ID = (rng.standard_normal((5000, 24)) * np.exp(spread * rng.standard_normal((5000, 1)))).astype(np.float32)
    masked = random_mask(rng, 60, 5000, 0.1)
    exact = users_BD.astype(np.float64) @ items_ID.T.astype(np.float64)
    expected = slow_top_k(exact, 20, masked)
    got = top_k_vectors(torch.from_numpy(users_BD), torch.from_numpy(items_ID), 20, masked)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=2e-6, atol=2e-6)


def test_a_short_vector_that_points_right_beats_long_ones_of_earlier_tiles():
    """Norm 1 at cosine .6 fills the first tile; ten of norm .65 along one user of a pair open the next tile for it."""
    items_ID = np.zeros((4000, 2), dtype=np.float32)
    items_ID[:, 0] = 0.01
    items_ID[1000:2024] = 0.6, 0.8
    items_ID[3990:] = 0.65, 0.0
    assert pack(torch.from_numpy(items_ID)).norm_T == pytest.approx([1, 0.65, 0.01, 0.01], rel=1e-5)
    users_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.0]])
    items, scores = top_k_vectors(users_BD, torch.from_numpy(items_ID), 11)
    along, across = [*range(3990, 4000), 1000], [*range(1000, 1011)]
    assert items.tolist() == [along, across, across, along, along]
    np.testing.assert_array_equal(scores[3], 2 * scores[0])


def test_scores_do_not_depend_on_company_threads_or_tiles():
    """To the bit: one user alone, all together, packed beforehand, in one thread or three."""
    rng = np.random.default_rng(6)
    users_BD = torch.from_numpy(rng.standard_normal((700, 33)).astype(np.float32))
    items_ID = torch.from_numpy(rng.standard_normal((1500, 33)).astype(np.float32))
    together = top_k_vectors(users_BD, items_ID, 10)
    for other in (top_k_vectors(users_BD, pack(items_ID), 10), in_n_threads(3, users_BD, items_ID)):
        np.testing.assert_array_equal(other[0], together[0])
        np.testing.assert_array_equal(other[1], together[1])
    for b in (0, 1, 255, 256, 699):
        alone = top_k_vectors(users_BD[b : b + 1], items_ID, 10)
        np.testing.assert_array_equal(alone[0][0], together[0][b])
        np.testing.assert_array_equal(alone[1][0], together[1][b])


def in_n_threads(n, users_BD, items_ID):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return top_k_vectors(users_BD, items_ID, 10)
    finally:
        torch.set_num_threads(before)


def test_two_tower_is_encoded_once_and_agrees_with_its_table():
    rng = np.random.default_rng(1)
    users_UD, items_ID = rng.integers(-3, 4, (50, 8)), rng.integers(-3, 4, (70, 8))
    model, masked = Vectors(users_UD, items_ID), random_mask(rng, 50, 70, 0.2)
    got = top_k(model, np.arange(50), 15, masked, block=7)
    assert model.encoded == 1
    expected = top_k(Table(users_UD @ items_ID.T), np.arange(50), 15, masked)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_a_model_may_answer_a_view_and_it_is_left_as_it_was():
    class Shared(Model):
        row = torch.arange(6.0)

        def score_all(self, users_B):
            return self.row.expand(len(users_B), 6)

    items, scores = top_k(Shared(None, empty_graph(2, 6)), [0, 1], 2, sp.csr_matrix(np.eye(2, 6)[:, ::-1]))
    assert items.tolist() == [[4, 3], [5, 3]]
    assert scores.tolist() == [[4, 3], [5, 3]]
    assert Shared.row.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_unsorted_mask_is_read_right():
    masked = sp.csr_matrix((np.ones(3), np.array([4, 0, 2]), np.array([0, 3])), shape=(1, 5))
    assert top_k(Table(np.ones((1, 5))), [0], 3, masked)[0].tolist() == [[1, 3, -1]]
    assert top_k_vectors(torch.ones(1, 2), torch.ones(5, 2), 3, masked)[0].tolist() == [[1, 3, -1]]


@pytest.mark.parametrize("place", [(0, 0), (3, 149)])
@pytest.mark.parametrize("masked", [False, True])
def test_nan_is_an_error_of_one_line(place, masked):
    table = np.zeros((4, 150))
    table[place] = np.nan
    mask = sp.csr_matrix(np.isnan(table).astype(np.float32)) if masked else None
    with pytest.raises(DataError, match="NaN") as error:
        top_k(Table(table), np.arange(4), 3, mask)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="NaN"):
        top_k(Vectors(np.where(np.isnan(table), np.nan, 1.0), np.ones((9, 150))), np.arange(4), 3)
    with pytest.raises(DataError, match="NaN"):
        select_by_key(torch.tensor(table), 3, *mask_rows(mask, 4, None))


def test_infinite_vectors_are_refused():
    with pytest.raises(DataError, match="NaN"):
        top_k_vectors(torch.ones(2, 3), torch.full((2, 3), torch.inf), 1)


def test_nobody_and_nothing():
    assert top_k(Table(np.zeros((3, 4))), [], 2)[0].shape == (0, 2)
    assert top_k(Vectors(np.zeros((3, 2)), np.zeros((4, 2))), [], 2)[0].shape == (0, 2)
    assert top_k_vectors(torch.ones(2, 3), torch.ones(0, 3), 2)[0].tolist() == [[-1, -1], [-1, -1]]
    assert top_k(Table(np.zeros((3, 4))), [1], 2, candidates=[])[0].tolist() == [[-1, -1]]
    with pytest.raises(ConfigError, match="k must be at least 1"):
        top_k(Table(np.zeros((3, 4))), [1], 0)
    with pytest.raises(ConfigError, match="block"):
        EvalConfig(block=0)
    with pytest.raises(ConfigError, match="negatives"):
        EvalConfig(negatives=0)


def test_modes_are_put_back_and_no_gradient_is_kept():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2))
    model.train()
    model[0].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model[1](torch.ones(1, 2)).requires_grad
    assert [module.training for module in model.modules()] == [True, False, True]
    assert device_of(model) == torch.device("cpu") == device_of(Model(None, empty_graph(1, 1)))


def test_pairwise_models_are_scored_in_small_blocks():
    from macrorec.eval.ranking import _block

    assert _block(Model(None, empty_graph(10, 40_000))) == 6
    assert _block(Table(np.zeros((2, 40_000)))) == 1677
