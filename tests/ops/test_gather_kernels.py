"""Sums in registers against a plain loop, for widths of whole vectors, of parts of one, and of both."""

import numpy as np
import pytest

from macrorec.ops import gather_kernels

NOTHING = np.empty(0, np.int64)


def random_csr(generator: np.random.Generator, n_rows: int, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    sizes = generator.integers(0, 40, n_rows)
    sizes[:3] = (0, 1, 39)
    start = np.append(0, np.cumsum(sizes)).astype(np.int64)
    return start, generator.integers(0, n_columns, start[-1]).astype(np.int32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 7, 8, 15, 16, 17, 31, 32, 48, 64, 65, 80, 128, 200])
def test_gather_is_a_sum_over_entries(width: int, dtype: type) -> None:
    generator = np.random.default_rng(width)
    start, col = random_csr(generator, 30, 25)
    value = generator.normal(size=len(col)).astype(np.float32)  # values stay float32 where x is float64
    x, add = (generator.normal(size=(n, width)).astype(dtype) for n in (25, 30))
    out = np.full((30, width), np.nan, dtype)
    gather_kernels.gather(start, col, value, x, NOTHING, add, NOTHING.astype(np.int32), out, 0, 30)
    for row in range(30):
        slow = add[row].astype(np.float64)
        for entry in range(start[row], start[row + 1]):
            slow = slow + np.float64(value[entry]) * x[col[entry]]
        np.testing.assert_allclose(out[row], slow, rtol=0, atol=1e-4 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("width", [5, 16, 32, 64, 72])
def test_gather_placed_is_gather_of_the_scattered_rows(width: int) -> None:
    generator = np.random.default_rng(width)
    start, col = random_csr(generator, 40, 40)
    value = generator.normal(size=len(col)).astype(np.float32)
    place = np.full(40, -1, np.int32)
    place[generator.permutation(40)[:9]] = np.arange(9)
    x, add = (generator.normal(size=(9, width)).astype(np.float32) for _ in range(2))
    whole_x, whole_add = (np.where(place[:, None] >= 0, rows[place], 0).astype(np.float32) for rows in (x, add))
    few, whole = (np.full((40, width), np.nan, np.float32) for _ in range(2))
    gather_kernels.gather_placed(start, col, value, x, add, place, few, 0, 40)
    gather_kernels.gather(start, col, value, whole_x, NOTHING, whole_add, NOTHING.astype(np.int32), whole, 0, 40)
    np.testing.assert_allclose(few, whole, rtol=0, atol=1e-5)


def test_rows_outside_the_block_are_left_alone() -> None:
    start, col = np.array([0, 2, 4, 6]), np.array([0, 1, 2, 0, 1, 2], np.int32)
    x, out = np.ones((3, 64), np.float32), np.full((3, 64), -1, np.float32)
    gather_kernels.gather(start, col, np.ones(6, np.float32), x, NOTHING, x[:0], NOTHING.astype(np.int32), out, 1, 2)
    assert out[:, 0].tolist() == [-1, 2, -1] and (out == out[:, :1]).all()
