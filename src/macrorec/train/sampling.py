"""Which batches make an epoch? One sampler per batch kind, all vectorised, all free of state.

Randomness is counter-based: the order of an epoch is a function of (seed, epoch), everything that a batch draws is a
function of (seed, epoch, step). Resuming at any step therefore needs no random state, only the two counters.

Counters are mixed by ``numpy.random.SeedSequence(seed, spawn_key=(purpose, epoch, step))``, whose hash gives
unrelated, well-spread keys to neighbouring counters; the key seeds Philox, a counter-based generator.

Shape letters: B rows of a batch, N negatives, U users, I items, E edges, R behaviours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.api import (
    Batch,
    BatchKind,
    ImpressionBatch,
    Impressions,
    Labelled,
    PairBatch,
    Pairwise,
    PointBatch,
    Pointwise,
    RowBatch,
    UserRows,
    take_rows,
)
from macrorec.data.log import Interactions
from macrorec.errors import ConfigError, DataError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.graph.features import Samples, macro_of, samples_at

Ints = npt.NDArray[np.int64]


class Purpose(IntEnum):
    """What a stream of random numbers is for; streams of different purposes are independent."""

    ORDER = 0
    DRAW = 1
    DROPOUT = 2
    SOLVE = 3


def stream(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    """The generator of (seed, purpose, counters): epoch, then step."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *counters))
    return np.random.Generator(np.random.Philox(sequence))


def torch_stream(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The same for torch. PyTorch's CPU generator keeps the lower 32 bits of its seed, the CUDA one all 64."""
    state = np.random.SeedSequence(seed, spawn_key=(int(purpose), *counters)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


class Sampler(ABC):
    """The batches of one kind over one graph."""

    def __init__(self, n_rows: int, batch_size: int, seed: int, device: torch.device | str) -> None:
        """``n_rows`` rows per epoch, cut into batches of ``batch_size``; the last may be smaller."""
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        if seed < 0:
            raise ConfigError(f"seed must be at least 0, not {seed}")
        self.n_rows, self.batch_size, self.seed = n_rows, batch_size, seed
        self.device = torch.device(device)

    @property
    def n_steps(self) -> int:
        """Batches per epoch."""
        return -(-self.n_rows // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` (from 0), beginning with number ``first_step``, on ``device``."""
        order = self._order(epoch) if first_step < self.n_steps else None
        for step in range(first_step, self.n_steps):
            first = step * self.batch_size
            stop = min(first + self.batch_size, self.n_rows)
            rows = np.arange(first, stop) if order is None else order[first:stop].astype(np.int64)
            generator = torch_stream(self.seed, Purpose.DROPOUT, epoch, step, device=self.device)
            yield self._batch(rows, stream(self.seed, Purpose.DRAW, epoch, step), generator)

    def _order(self, epoch: int) -> npt.NDArray[np.integer] | None:
        """A permutation of the epoch's rows; None where rows are drawn with replacement."""
        kind: type[np.integer] = np.int32 if self.n_rows <= np.iinfo(np.int32).max else np.int64
        order: npt.NDArray[np.integer] = np.arange(self.n_rows, dtype=kind)
        stream(self.seed, Purpose.ORDER, epoch).shuffle(order)
        return order

    @abstractmethod
    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> Batch:
        """The batch of these row numbers."""

    def _move(self, array: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


class NonEdges:
    """Draws items that are no edge of a user, uniformly and without rejection: a rank among those that it has not."""

    def __init__(self, edges: Edges, n_items: int) -> None:
        self.start_U: Ints = edges.start_U.numpy()
        self.item_E: Ints = edges.item_E.numpy()
        self.n_missing_U: Ints = n_items - np.diff(self.start_U)

    def draw(self, users_B: Ints, n: int, random: np.random.Generator) -> Ints:
        """Items of shape (B, n). Every user must lack some item."""
        users = users_B.repeat(n)
        return self.select(users, random.integers(0, self.n_missing_U[users])).reshape(len(users_B), n)

    def select(self, users_B: Ints, rank_B: Ints) -> Ints:
        """Per user the missing item of that rank, from 0; shape (B,)."""
        from macrorec.ops.missing import missing

        items_B: Ints = np.empty_like(rank_B)
        missing(self.start_U, self.item_E, users_B, rank_B, items_B)
        return items_B


class EdgeSampler(Sampler):
    """Edges of the target behaviour, or of every one, with n negatives each: what ``Pairwise`` and ``Pointwise`` share.

    With ``true_negatives``, a user who has every item can have no negative: their edges are left out of every epoch,
    and ``n_skipped`` counts them. Raises DataError if no edge is left.
    """

    def __init__(
        self, kind: Pairwise | Pointwise, graph: Graph, batch_size: int, seed: int, device: torch.device | str
    ) -> None:
        """See ``sampler``. A batch holds ``batch_size`` edges."""
        several = isinstance(kind, Pointwise) and kind.every_behavior
        edges = stacked(graph) if several else graph.target
        fewest = 1 if isinstance(kind, Pairwise) else 0
        if kind.n < fewest:
            raise ConfigError(f"the number of negatives must be at least {fewest}, not {kind.n}")
        if not len(graph.target):
            raise DataError(f"nothing to train on: no {graph.behaviors[-1].name!r} event in the train part")
        self.kind, self.n_users, self.n_items = kind, graph.n_users, graph.n_items
        self.user_E, self.item_E = edges.user_E.numpy(), edges.item_E.numpy()
        self.non_edges = NonEdges(edges, graph.n_items) if kind.true_negatives and kind.n else None
        self.kept: Ints | None = None
        if self.non_edges is not None and not self.non_edges.n_missing_U.all():
            self.kept = np.flatnonzero(self.non_edges.n_missing_U[self.user_E])
            if not len(self.kept):
                raise DataError("true negatives do not exist: every user has every item; set true_negatives to false")
        n_kept = len(self.user_E) if self.kept is None else len(self.kept)
        self.n_skipped = len(self.user_E) - n_kept
        super().__init__(n_kept, batch_size, seed, device)

    def _edges(self, rows: Ints) -> tuple[Ints, Ints]:
        edge_B = rows if self.kept is None else self.kept[rows]
        return self.user_E[edge_B], self.item_E[edge_B]

    def _negatives(self, users_B: Ints, random: np.random.Generator) -> Ints:
        if self.non_edges is not None:
            return self.non_edges.draw(users_B, self.kind.n, random)
        return random.integers(0, self.n_items, size=(len(users_B), self.kind.n))


def stacked(graph: Graph) -> Edges:
    """The edges of every behaviour as those of R U users: what user u did by behaviour r, user r U + u did."""
    before = np.cumsum([0, *(len(edges) for edges in graph.edges)]).tolist()
    starts = [edges.start_U[:-1] + first for edges, first in zip(graph.edges, before[:-1], strict=True)]
    return Edges(
        user_E=torch.cat([edges.user_E + r * graph.n_users for r, edges in enumerate(graph.edges)]),
        item_E=torch.cat([edges.item_E for edges in graph.edges]),
        weight_E=torch.cat([edges.weight_E for edges in graph.edges]),
        count_E=torch.cat([edges.count_E for edges in graph.edges]),
        start_U=torch.cat([*starts, torch.tensor(before[-1:])]),
    )


class PairSampler(EdgeSampler):
    """Every edge once per epoch, in random order."""

    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> PairBatch:
        users_B, items_B = self._edges(rows)
        negatives_BN = self._negatives(users_B, random)
        return PairBatch(self._move(users_B), self._move(items_B), self._move(negatives_BN), generator)


class UniformUserSampler(PairSampler):
    """As many draws as edges, with replacement: a user uniform over those who have an edge, then one of its items."""

    def __init__(self, kind: Pairwise, graph: Graph, batch_size: int, seed: int, device: torch.device | str) -> None:
        """See ``sampler``."""
        super().__init__(kind, graph, batch_size, seed, device)
        self.start_U = graph.target.start_U.numpy()
        has_edge = np.diff(self.start_U) > 0
        if self.non_edges is not None:
            has_edge &= self.non_edges.n_missing_U > 0
        self.active: Ints = np.flatnonzero(has_edge)

    def _order(self, epoch: int) -> None:
        return None

    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> PairBatch:
        users_B = self.active[random.integers(0, len(self.active), size=len(rows))]
        edge_B = random.integers(self.start_U[users_B], self.start_U[users_B + 1])
        negatives_BN = self._negatives(users_B, random)
        return PairBatch(self._move(users_B), self._move(self.item_E[edge_B]), self._move(negatives_BN), generator)


class PointSampler(EdgeSampler):
    """Every edge once per epoch, label 1, followed by the negatives of the batch, label 0: B = edges x (1 + n) rows."""

    kind: Pointwise

    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> PointBatch:
        users, items = self._edges(rows)
        negatives = self._negatives(users, random)
        users_B = np.concatenate([users, users.repeat(self.kind.n)])
        items_B = np.concatenate([items, negatives.ravel()])
        labels_B = np.zeros(len(users_B), dtype=np.float32)
        labels_B[: len(users)] = 1
        behavior_B = None
        if self.kind.every_behavior:
            behavior, users_B = np.divmod(users_B, self.n_users)
            behavior_B = self._move(behavior)
        return PointBatch(self._move(users_B), self._move(items_B), self._move(labels_B), generator, behavior_B)


class RowSampler(Sampler):
    """Every user with an edge, of the target or of any behaviour, once per epoch, in random order, with all items."""

    def __init__(self, kind: UserRows, graph: Graph, batch_size: int, seed: int, device: torch.device | str) -> None:
        """See ``sampler``. A batch holds ``batch_size`` users."""
        self.kind = kind
        self.edges = graph.edges if kind.every_behavior else (graph.target,)
        n_edges_U = torch.stack([edges.start_U.diff() for edges in self.edges]).sum(0)
        self.active: Ints = np.flatnonzero(n_edges_U.numpy())
        if not len(self.active):
            what = "event" if kind.every_behavior else f"{graph.behaviors[-1].name!r} event"
            raise DataError(f"nothing to train on: no {what} in the train part")
        super().__init__(len(self.active), batch_size, seed, device)

    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> RowBatch:
        users_B = self.active[rows]
        taken = [take_rows(edges.start_U, edges.item_E, torch.from_numpy(users_B)) for edges in self.edges]
        moved = tuple((self._move(start_B.numpy()), self._move(items_E.numpy())) for start_B, items_E in taken)
        return RowBatch(self._move(users_B), *moved[-1], generator, moved if self.kind.every_behavior else ())


class LabelledSampler(Sampler):
    """Every row of the log that carries a label (not NaN) once per epoch, in random order."""

    def __init__(self, labelled: Interactions | None, batch_size: int, seed: int, device: torch.device | str) -> None:
        """See ``sampler``."""
        if labelled is None or labelled.label is None:
            raise DataError("this model trains on labelled rows, and the log has no column 'label'")
        rows = np.flatnonzero(~np.isnan(labelled.label))
        if not len(rows):
            raise DataError("this model trains on labelled rows, and no row of the train part carries a label")
        self.user: Ints = labelled.user[rows].astype(np.int64)
        self.item: Ints = labelled.item[rows].astype(np.int64)
        self.label = labelled.label[rows]
        low, high = float(self.label.min()), float(self.label.max())
        if low < 0 or high > 1:
            raise DataError(f"labels must lie in [0, 1], and run from {low:g} to {high:g}: rescale or binarise them")
        super().__init__(len(rows), batch_size, seed, device)

    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> PointBatch:
        arrays = (self._move(self.user[rows]), self._move(self.item[rows]), self._move(self.label[rows]))
        return PointBatch(*arrays, generator)


class ImpressionSampler(Sampler):
    """Every labelled impression once per epoch, in random order, with its features."""

    def __init__(self, samples: Samples, batch_size: int, seed: int, device: torch.device | str) -> None:
        """See ``sampler``."""
        if not len(samples):
            raise DataError("nothing to train on: there is no labelled impression in the train part")
        self.samples = samples
        super().__init__(len(samples), batch_size, seed, device)

    def _batch(self, rows: Ints, random: np.random.Generator, generator: torch.Generator) -> ImpressionBatch:
        at = torch.from_numpy(rows)
        features = self.samples.features.take(at).to(self.device)
        return ImpressionBatch(features, self.samples.label_B[at].to(self.device), generator)


def sampler(
    kind: BatchKind,
    graph: Graph,
    batch_size: int,
    *,
    seed: int,
    labelled: Interactions | Samples | None = None,
    device: torch.device | str = "cpu",
) -> Sampler:
    """The sampler of ``kind``. Draws on the CPU; batches are moved to ``device`` without waiting.

    ``batch_size`` counts edges (Pairwise, Pointwise), users (UserRows) or rows (Labelled). ``labelled`` is the train
    part of the log, for ``Labelled`` only. Raises DataError where there is nothing to draw.
    """
    match kind:
        case Pairwise(by="user"):
            return UniformUserSampler(kind, graph, batch_size, seed, device)
        case Pairwise():
            return PairSampler(kind, graph, batch_size, seed, device)
        case Pointwise():
            return PointSampler(kind, graph, batch_size, seed, device)
        case UserRows():
            return RowSampler(kind, graph, batch_size, seed, device)
        case Labelled():
            rows = labelled.pairs if isinstance(labelled, Samples) else labelled
            return LabelledSampler(rows, batch_size, seed, device)
        case Impressions():
            return ImpressionSampler(_impressions(graph, labelled), batch_size, seed, device)


def _impressions(graph: Graph, labelled: Interactions | Samples | None) -> Samples:
    """``labelled`` as samples; rows without features see the whole of ``graph``, themselves included."""
    if isinstance(labelled, Samples):
        return labelled
    if labelled is None or labelled.label is None:
        raise DataError("a ranker trains on labelled rows, and the log has no column 'label'")
    return samples_at(graph.macro or macro_of(graph), labelled)
