"""Which items of a large catalogue could this user want? Searches by vector, all behind one call.

``Exact``           every item that could matter is multiplied; the oracle of all others
``ScoreRetriever``  for models without vectors: whole rows of scores
``macrorec.serve.index``   an approximate index, its best re-ranked by exact inner products
``macrorec.serve.canary``  such an index under watch, with ``Exact`` to fall back to

Every score is the same to the bit, whoever found the item; ties go by item number.

Shape letters: B queries, I items of the fit, N items announced since, C candidates, D embedding, T tiles, W items of a
tile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from macrorec.api import Model
from macrorec.errors import DataError
from macrorec.eval.ranking import device_of, evaluating, select_rows
from macrorec.eval.vectors import NAN, PackedItems, Ranking, empty, pack, upper_norms
from macrorec.graph.bipartite import Edges

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Drop = Callable[[Numbers], npt.NDArray[np.bool_]]
"""Which of these items (numbers) may not be in the answer."""

GROWTH = 4
"""A search that lost too many to filters is repeated so much deeper."""
DEEPEST = 4096
"""Beyond this depth all that filters leave is scored, instead of searching deeper."""


class Retriever(Protocol):
    """Finds the items of largest inner product. Safe to call from many threads."""

    @property
    def kind(self) -> str:
        """What answers now, for people and metrics: ``exact``, ``ivf-flat``, ..."""

    @property
    def exact(self) -> bool:
        """Whether answers are exact now."""

    @property
    def n_items(self) -> int:
        """Items that can be found: those of the fit, then those appended."""

    def search(self, vectors_BD: Floats, k: int) -> Ranking:
        """The k items of largest inner product with each query: numbers (B, k), int64, -1 where none is left, and
        scores, float32, -inf there; by (-score, number). Raises DataError for NaN or infinity in a query."""

    def score(self, vectors_BD: Floats, numbers_BC: Numbers) -> Floats:
        """Inner products (B, C) of each query with its own candidates; -inf for the number -1."""

    def append(self, vectors_ND: Floats) -> None:
        """Take in items announced later; they get the numbers that follow, and are found from now on."""


class Later:
    """Vectors that came after the fit, searched exactly; they grow in place while others read."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._lock = threading.Lock()
        self._rows_ND = np.zeros((0, dim), dtype=np.float32)
        self._packed: PackedItems = pack(torch.zeros(0, dim))

    def __len__(self) -> int:
        return len(self._packed.items_I)

    @property
    def rows_ND(self) -> Floats:
        """The vectors; at least as many as were there a moment ago."""
        return self._rows_ND

    @property
    def packed(self) -> PackedItems:
        """The same as tiles, numbered from 0."""
        return self._packed

    def append(self, vectors_ND: Floats) -> None:
        """Add vectors. Raises DataError unless all are finite."""
        new_ND = np.ascontiguousarray(vectors_ND, dtype=np.float32).reshape(-1, self._dim)
        norm_N = upper_norms(new_ND)
        with self._lock:
            old = self._packed
            n, (n_tiles, padded, width) = len(old.items_I), old.tiles_TDW.shape
            total = n + len(new_ND)
            needed = -(-total // width)
            tiles_TDW = old.tiles_TDW
            if needed > n_tiles:
                tiles_TDW = np.zeros((max(needed, 2 * n_tiles), padded, width), dtype=np.float32)
                tiles_TDW[:n_tiles] = old.tiles_TDW
            norm_T = np.zeros(needed)
            norm_T[: len(old.norm_T)] = old.norm_T
            place = np.arange(n, total)
            tiles_TDW[place // width, : self._dim, place % width] = new_ND  # no reader looks beyond its own items_I
            np.maximum.at(norm_T, place // width, norm_N)
            if total > len(self._rows_ND):
                rows_ND = np.zeros((max(total, 2 * len(self._rows_ND)), self._dim), dtype=np.float32)
                rows_ND[:n] = self._rows_ND[:n]
                self._rows_ND = rows_ND
            self._rows_ND[n:total] = new_ND
            self._packed = PackedItems(tiles_TDW, norm_T, np.arange(total))


class Exact:
    """Multiplies all items, in tiles that descend in norm, until no later one can enter (Cauchy-Schwarz)."""

    kind = "exact"
    exact = True

    def __init__(self, items_ID: Floats) -> None:
        """``items_ID``: the item vectors, float32. Raises DataError unless all are finite."""
        self.items_ID = np.array(items_ID, dtype=np.float32, order="C")  # in large pages, which a mapped file has not
        self.later = Later(self.items_ID.shape[1])
        self._packed = pack(torch.from_numpy(self.items_ID))

    @property
    def n_items(self) -> int:
        return len(self.items_ID) + len(self.later)

    def search(self, vectors_BD: Floats, k: int) -> Ranking:
        return self.with_later(tiled(padded_rows(vectors_BD), self._packed, k), vectors_BD, k)

    def with_later(self, found: Ranking, vectors_BD: Floats, k: int) -> Ranking:
        """``found`` among the items of the fit, and the items announced since, as one ranking."""
        packed = self.later.packed
        if not len(packed.items_I):
            return found
        numbers_BK, scores_BK = tiled(padded_rows(vectors_BD), packed, k)
        numbers_BK[numbers_BK >= 0] += len(self.items_ID)
        return merged(found, (numbers_BK, scores_BK), k)

    def score(self, vectors_BD: Floats, numbers_BC: Numbers) -> Floats:
        from macrorec.serve.rerank import score

        queries_BD = finite(vectors_BD)
        assert numbers_BC.size == 0 or int(numbers_BC.max()) < self.n_items, "native code trusts the numbers"
        scores_BC = np.empty(numbers_BC.shape, dtype=np.float32)
        score(queries_BD, self.items_ID, self.later.rows_ND, np.ascontiguousarray(numbers_BC), scores_BC)
        return scores_BC

    def best(self, vectors_BD: Floats, numbers_BM: Numbers, rough_BM: Floats, wanted: int, k: int) -> Ranking:
        """The k of largest inner product with each query among those ``wanted`` of M items whose rough score is best.

        Numbers of -1 are none; the others are items of the fit.
        """
        from macrorec.serve.rerank import best

        found = empty(len(vectors_BD), k)
        best(finite(vectors_BD), self.items_ID, self.later.rows_ND, rough_BM, numbers_BM, wanted, *found)
        return found

    def append(self, vectors_ND: Floats) -> None:
        self.later.append(vectors_ND)


class ScoreRetriever:
    """For models whose score is no inner product: all items are scored, for one query at a time."""

    kind = "scores"
    exact = True

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def n_items(self) -> int:
        """Items that can be found: those of the fit."""
        return self.model.n_items

    def of_user(self, user: int) -> Row:
        """The model's own row of a user of the fit (number)."""
        with evaluating(self.model):
            scores_1I = self.model.score_all(torch.tensor([user], device=device_of(self.model)))
        return Row(scores_1I.cpu())

    def of_history(self, history: Edges) -> Row:
        """The row of one new user with ``history``. Raises NotImplementedError for a model that cannot fold in."""
        with evaluating(self.model):
            return Row(self.model.fold_in(history).cpu())


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One query's scores of all items, shape (1, I), to be searched like a catalogue of vectors."""

    scores_1I: torch.Tensor

    @property
    def n_items(self) -> int:
        return int(self.scores_1I.shape[1])

    def search(self, vectors_BD: Any, k: int) -> Ranking:
        """The k best items; the query is known already."""
        return select_rows(self.scores_1I, k, np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int32))

    def score(self, vectors_BD: Any, numbers_BC: Numbers) -> Floats:
        scores_BC: Floats = self.scores_1I.float().numpy()[:, numbers_BC[0]]
        return scores_BC


class Searched(Protocol):
    """What ``nearest`` needs of a ``Retriever`` or a ``Row``."""

    @property
    def n_items(self) -> int: ...

    def search(self, vectors_BD: Any, k: int) -> Ranking: ...

    def score(self, vectors_BD: Any, numbers_BC: Numbers) -> Floats: ...


def nearest(
    source: Searched,
    vector_D: Any,
    n: int,
    drop: Drop | None = None,
    *,
    only: Numbers | None = None,
    expected: int = 0,
) -> tuple[Numbers, Floats]:
    """The n best items that filters leave, fewer where no more are left: numbers and scores, by (-score, number).

    ``drop`` says what is left out; ``expected``, how many of the best that may be; ``only``: nothing but these items
    (distinct numbers). What is filtered is searched for deeper until n remain, at last by scoring all that is left, so
    filters never make an answer shorter than it must be.
    """
    query_1D = None if vector_D is None else np.asarray(vector_D, dtype=np.float32)[None]
    if only is None:
        k = min(n + expected, source.n_items)
        while 0 < k <= DEEPEST:
            numbers, scores = (found_1K[0] for found_1K in source.search(query_1D, k))
            keep = numbers >= 0
            if drop is not None:
                keep[keep] = ~drop(numbers[keep])
            if k >= source.n_items or int(keep.sum()) >= n:
                return numbers[keep][:n], scores[keep][:n]
            k = min(GROWTH * k, source.n_items)
        only = np.arange(source.n_items)
    left = only if drop is None else only[~drop(only)]
    scores = source.score(query_1D, left[None])[0]
    if np.isnan(scores).any():
        raise DataError(NAN)
    if len(left) > n > 0:
        enough = scores >= np.partition(scores, len(left) - n)[len(left) - n]
        left, scores = left[enough], scores[enough]
    order = np.lexsort((left, -scores))[:n]
    order = order[scores[order] > -np.inf]
    return left[order], scores[order]


def tiled(queries_BD: Floats, packed: PackedItems, k: int) -> Ranking:
    """The k best of ``packed`` for each query, on the calling thread alone."""
    from macrorec.eval.topk import search

    n = len(queries_BD)
    numbers_BK, scores_BK = empty(n, k)
    nothing = np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    own = packed.tiles_TDW[: len(packed.norm_T)]
    if (
        search(queries_BD, upper_norms(queries_BD), own, packed.norm_T, packed.items_I, *nothing, numbers_BK, scores_BK)
        >= 0
    ):
        raise DataError(NAN)
    return numbers_BK, scores_BK


def merged(one: Ranking, other: Ranking, k: int) -> Ranking:
    """The k best of two rankings of different items."""
    numbers = np.concatenate([one[0], other[0]], axis=1)
    scores = np.concatenate([one[1], other[1]], axis=1)
    return ordered(numbers, scores, k)


def ordered(numbers_BC: Numbers, scores_BC: Floats, k: int) -> Ranking:
    """The k best of each row by (-score, number); -1 and -inf fill what is missing."""
    scores_BC = np.where(numbers_BC < 0, -np.inf, scores_BC)
    last = np.where(numbers_BC < 0, np.iinfo(np.int64).max, numbers_BC)
    order_BK = np.lexsort((last, -scores_BC), axis=1)[:, :k]
    numbers_BK, best_BK = empty(len(numbers_BC), k)
    numbers_BK[:], best_BK[:] = -1, -np.inf
    width = order_BK.shape[1]
    numbers_BK[:, :width] = np.take_along_axis(numbers_BC, order_BK, 1)
    best_BK[:, :width] = np.take_along_axis(scores_BC, order_BK, 1)
    return numbers_BK, best_BK


def finite(vectors_BD: Floats) -> Floats:
    """``padded_rows``. Raises DataError for NaN or infinity."""
    queries_BD = padded_rows(vectors_BD)
    if not np.isfinite(queries_BD).all():
        raise DataError(NAN)
    return queries_BD


def padded_rows(vectors_BD: Floats) -> Floats:
    """Contiguous float32 rows, D filled up with zeros to a multiple of 8 as in ``eval.vectors.pack``."""
    n, dim = vectors_BD.shape
    rows = np.zeros((n, max(8, -(-dim // 8) * 8)), dtype=np.float32)
    rows[:, :dim] = vectors_BD
    return rows
