"""What does training change in the process while it runs? Threads, determinism and Ctrl-C; all are put back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import torch


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """``n`` CPU threads for torch and, as far as it has as many, numba; None changes nothing."""
    before = torch.get_num_threads(), numba.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Only kernels that give equal bits for equal input, if ``wanted``.

    Without it even a CPU does not: the backward of ``table[rows]`` adds by several threads in any order (and is slower).
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


@contextmanager
def interrupts(*, deferred: bool) -> Iterator[Callable[[], bool]]:
    """If ``deferred``, Ctrl-C is raised at the end of the block, which may ask whether it came; a second at once."""
    pressed: list[int] = []

    def note(number: int, _frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    if not deferred or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
