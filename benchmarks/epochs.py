"""How long does an epoch through ``train`` take beside a baseline? In turns, medians, one JSON line.

``train`` is stopped after so many steps, the baseline steps over ready-made batches, and both are scaled to the epoch.
The first step of each is left out: it compiles, and touches memory for the first time.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.line import emit
from macrorec.api import Batch, Model
from macrorec.graph.bipartite import Graph
from macrorec.graph.features import Samples
from macrorec.train.trainer import TrainConfig, train

THREADS, TURNS = 4, 3
B = TypeVar("B", bound=Batch)


class Enough(Exception):
    """As many steps as were wanted are done."""


@dataclass
class Clock:
    """Stands in for the progress display: notes when each step ends, and stops the training after ``steps``, if set."""

    steps: int | None = None
    losses: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
        """Training begins."""
        self._note()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A batch is done."""
        self.losses.append(loss)
        self._note()
        if len(self.losses) == self.steps:
            raise Enough

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done: nothing to note."""

    def close(self) -> None:
        """Training is over: nothing to close."""

    def _note(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def per_step(self) -> tuple[float, float]:
        """Mean wall and processor seconds of a step, the first left out."""
        n = len(self.wall) - 2
        return (self.wall[-1] - self.wall[1]) / n, (self.cpu[-1] - self.cpu[1]) / n


def trained(
    model: type[Model],
    config: Any,
    graph: Graph,
    settings: TrainConfig,
    *,
    steps: int | None = None,
    labelled: Samples | None = None,
) -> Clock:
    """``steps`` steps, or all epochs of ``settings``, of a new model through ``train``."""
    clock = Clock(steps)
    new = model.from_graph(config, graph, torch.Generator().manual_seed(0))
    with suppress(Enough):
        train(new, graph, settings, seed=0, labelled=labelled, progress=clock)
    return clock


Plain = tuple[float, list[float]]
"""Mean seconds of a baseline's step, the first left out, and its losses."""


def stepped(optimizer: torch.optim.Optimizer, loss_of: Callable[[B], Tensor], batches: Sequence[B]) -> Plain:
    """A step for each of at least two ready-made batches, as anybody would write it."""
    losses, ends = [], []
    for batch in batches:
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / (len(ends) - 1), losses


def peak_rss() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Epochs:
    """Seconds of an epoch, one per turn."""

    n_steps: int
    """Of an epoch."""
    measured: int
    """Steps through ``train``."""
    walls: list[float]
    cpus: list[float]
    plains: list[list[float]]
    """For each baseline, the first being the one to compare with."""


def in_turns(n_steps: int, ours: Callable[[], Clock], *plains: Callable[[], Plain]) -> Epochs:
    """``ours`` and each baseline TURNS times, one after the other, scaled to ``n_steps`` steps."""
    walls, cpus, others = [], [], [list[float]() for _ in plains]
    for _ in range(TURNS):
        clock = ours()
        wall, cpu = clock.per_step()
        walls.append(n_steps * wall)
        cpus.append(n_steps * cpu)
        for own, plain in zip(others, plains, strict=True):
            own.append(n_steps * plain()[0])
    return Epochs(n_steps, len(clock.losses), walls, cpus, others)


def report(name: str, epochs: Epochs, baseline: str, *, digits: int = 2, **extra: Any) -> None:
    """Print the line; ``baseline`` says in words what the first baseline is."""
    value, plain = median(epochs.walls), median(epochs.plains[0])
    emit(
        name=name,
        value=round(value, digits),
        unit="s",
        baseline={"name": baseline, "value": round(plain, 1)},
        ratio=round(plain / value, 2),
        best=round(min(epochs.walls), digits),
        cpu_seconds=round(median(epochs.cpus), digits),
        **extra,
        steps={"measured": epochs.measured, "epoch": epochs.n_steps},
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )
