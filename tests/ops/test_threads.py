import time

import numpy as np
import pytest
import torch

from macrorec.ops.threads import SERIAL, in_blocks, in_parts


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("cuts", [[0], [0, 5], [0, 1, 1, 7], [*range(0, 100, 3), 100]])
def test_every_row_is_in_one_part(cuts):
    seen = np.zeros(cuts[-1], int)

    def count(lo, hi):
        seen[lo:hi] += 1

    in_parts(count, cuts)
    assert (seen == 1).all()


@pytest.mark.parametrize("costs", [[], [1], [0, 0, SERIAL, 0], [SERIAL] * 50, [0] * 10 + [SERIAL]])
def test_every_row_is_in_one_block(costs):
    seen = np.zeros(len(costs), int)

    def count(lo, hi):
        seen[lo:hi] += 1

    in_blocks(count, np.append(0, np.cumsum(costs)).astype(np.int64), 1)
    assert (seen == 1).all()


def test_what_a_part_raises_reaches_the_caller_when_no_part_runs():
    started, ended = [], []

    def fail(lo, hi):
        started.append(lo)
        time.sleep(0.002)
        ended.append(lo)
        if lo == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        in_parts(fail, range(20))
    assert sorted(started) == sorted(ended)


def test_parts_may_have_parts_of_their_own():
    seen = np.zeros((30, 30), int)

    def row(n, _):
        def count(lo, hi):
            seen[n, lo:hi] += 1

        in_parts(count, range(31))

    in_parts(row, range(31))
    assert (seen == 1).all()
