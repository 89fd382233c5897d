"""How long do several calls take beside each other? Measured in turns, so that a busy machine slows them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Took:
    """Medians of one call."""

    wall: float
    """Seconds."""
    cpu: float
    """Processor seconds over all threads; on an idle machine, wall time is at least this over the number of threads."""


def timed(*calls: Callable[[], object], repeats: int = 5, warm: int = 0) -> list[Took]:
    """Medians over ``repeats`` turns, after one that is not measured.

    In each turn a call is made ``warm`` times before the one that counts, for what follows itself in real life: its
    threads are then awake, and the caches its own.
    """
    runs: list[list[tuple[float, float]]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for own, call in zip(runs, calls, strict=True):
            for _ in range(warm):
                call()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if turn:
                own.append((time.perf_counter() - wall, time.process_time() - cpu))
    return [Took(*(statistics.median(column) for column in zip(*own, strict=True))) for own in runs]
