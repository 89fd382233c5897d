"""What does training change in the process while it runs? Threads, determinism and Ctrl-C; all are put back."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """``n`` CPU threads for torch and, where it is loaded, numba; None stands for as many as torch has.

    Numba starts its threads at the first compiled loop, and with them raises torch's number to that of all cores,
    whatever OMP_NUM_THREADS says. So it starts here, and torch's number is set afterwards.
    """
    before = torch.get_num_threads()
    wanted = before if n is None else n
    numba = sys.modules.get("numba")
    numba_before = 0
    if numba is not None:
        numba_before = numba.get_num_threads()
        numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        if numba is not None:
            numba.set_num_threads(numba_before)
        torch.set_num_threads(before)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Only kernels that give equal bits for equal input, if ``wanted``.

    Without it even a CPU does not: the backward of ``table[rows]`` adds by several threads in any order, and slower.
    """
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True)
        settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]


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
