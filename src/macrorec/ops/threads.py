"""How do compiled loops share the processor? Parts of their rows, on as many threads as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

BLOCKS_PER_THREAD = 4
"""Blocks of rows that a thread takes on average; the calling thread takes part, so that a late one holds up nobody."""
SERIAL = 1 << 17
"""Multiplications below which one thread is faster than handing out blocks."""


def in_blocks(kernel: Callable[[int, int], None], cost: npt.NDArray[Any], width: int) -> None:
    """Run ``kernel(lo, hi)`` over the rows 0 : len(cost) - 1, cut where cumulated ``cost`` is even."""
    n_rows, n_threads = len(cost) - 1, torch.get_num_threads()
    if n_threads == 1 or int(cost[-1]) * width < SERIAL:
        kernel(0, n_rows)
        return
    cuts = np.searchsorted(cost, np.linspace(0, int(cost[-1]), n_threads * BLOCKS_PER_THREAD + 1))
    cuts[0], cuts[-1] = 0, n_rows
    in_parts(kernel, cuts.tolist())


def in_parts(kernel: Callable[[int, int], None], cuts: Sequence[int]) -> None:
    """Run ``kernel(lo, hi)`` from each cut to the next; returns, or raises what a kernel raised, when none runs."""
    parts = iter(list(pairwise(cuts)))

    def work() -> None:
        for lo, hi in parts:
            kernel(lo, hi)

    n_threads = torch.get_num_threads()
    others = [pool(n_threads).submit(work) for _ in range(min(n_threads, len(cuts) - 1) - 1)]
    try:
        work()
    finally:
        running = [other for other in others if not other.cancel()]
        errors = [error for other in running if (error := other.exception())]
    if errors:
        raise errors[0]


def pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that kernels share."""
    return _pool(os.getpid(), n_threads)


@lru_cache(maxsize=2)
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork starts without its parent's."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="macrorec-ops")
