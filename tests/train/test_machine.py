import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numba
import pytest
import torch

from macrorec.train.machine import determinism, interrupts, threads


@pytest.fixture(autouse=True)
def heeding_ctrl_c() -> Iterator[None]:
    """A process started in the background ignores Ctrl-C; here it does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_threads_are_set_and_put_back() -> None:
    numba.get_num_threads()  # starts numba's threads, once per process
    before = torch.get_num_threads(), numba.get_num_threads()
    with pytest.raises(KeyError), threads(1):
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
        raise KeyError
    assert (torch.get_num_threads(), numba.get_num_threads()) == before
    with threads(10_000):
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_the_start_of_numba_does_not_raise_the_threads_of_torch() -> None:
    code = """
import numba, torch
from macrorec.train.machine import threads
assert torch.get_num_threads() == 1
with threads(None):
    assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
assert torch.get_num_threads() == 1
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_determinism_is_set_and_put_back() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled()
    with determinism(False):
        assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_rows_of_a_table_have_one_gradient_whatever_the_threads() -> None:
    """What training relies on: with several threads, and many repeats of a row, equal bits every time."""
    table = torch.rand(50, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = torch.randint(0, 50, (20_000,), generator=torch.Generator().manual_seed(1))
    factor = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(2))
    with threads(4), determinism(True):
        gradients = [torch.autograd.grad((table[rows] * factor).sum(), table)[0] for _ in range(5)]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupts(deferred=True) as pressed:
        assert not pressed()
        os.kill(os.getpid(), signal.SIGINT)
        assert pressed()
        reached = True
    assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_comes_first() -> None:
    with pytest.raises(KeyError), interrupts(deferred=True):
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyError


def test_not_deferred_means_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts(deferred=False) as pressed:
        assert not pressed()
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
        pytest.fail("Ctrl-C waited")
