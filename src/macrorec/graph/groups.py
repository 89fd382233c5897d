"""Which macro node does a user or an item belong to?

Shape letters: N nodes of one side, K groups, F numbers of a behaviour vector, U users, I items, E events.
Behaviour vectors are dense, or CSR where F is large. Nothing here depends on the number of threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Discriminator
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from macrorec.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Vectors = Any
"""Behaviour vectors of N nodes, (N, F): an array of floats, or a CSR matrix."""
Pick = Literal["first", "last", "rarest", "all"]

UNKNOWN = -1
"""The group of a node without one: no macro edge counts it, and nothing attends to it."""
WIDE = 128
"""Behaviour vectors of more numbers than this are kept as CSR: mostly they are zeros."""
SAMPLE = 200_000
"""k-means learns its centres from at most so many nodes, drawn by the seed; all then join the nearest."""
STARTS = 4
"""Starts of k-means, of which the best counts: on the demo market's users one start ends 4 % above four, on average."""
_BLOCK = 1 << 21
"""Numbers that a block of dense vectors holds while distances are taken."""
_NOTHING = 1e-5
"""Numbers below this are rounding of float32, not behaviour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByCategory:
    """Items grouped by the category column of the source's item file."""

    kind: Literal["category"] = "category"
    pick: Pick = "first"
    """Which of several categories counts: the first, the last, the one of fewest items, or all as one group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByKMeans:
    """k-means on behaviour vectors, (3) and (4)."""

    kind: Literal["kmeans"] = "kmeans"
    n: int = 20
    """Number of groups; 20 users' groups are those of the authors' code."""
    dim: int = 32
    """Numbers per behaviour vector of an item; a user's has one per group of items."""

    def __post_init__(self) -> None:
        for name in ("n", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ByFile:
    """Groups from outside, such as clusters of another model."""

    path: str
    """A Parquet file of item_id (or user_id) and group, such as ``macrorec clusters --out`` writes. A file that says
    until when its groups were learned is refused where the history ends earlier."""
    kind: Literal["file"] = "file"
    join: bool = False
    """Whether nodes that the file gives no group join one, as with k-means, once they have history."""


Grouping = Annotated[ByCategory | ByKMeans | ByFile, Discriminator("kind")]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The macro nodes of one side: x_v of (3) for each of N nodes."""

    of_N: npt.NDArray[np.int32]
    """Group of each node, 0 to n - 1, or ``UNKNOWN``; shape (N,)."""
    n: int
    """Number of groups."""
    names: tuple[str, ...] = ()
    """A name per group, where the groups have one, such as those of categories."""
    centres_KF: Floats | None = None
    """mu_k of (3), where groups come from behaviour vectors of F numbers; a later node joins the nearest."""

    def __len__(self) -> int:
        return len(self.of_N)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Nodes in each group, shape (K,)."""
        return np.bincount(self.of_N[self.of_N >= 0], minlength=self.n)

    @property
    def unknown(self) -> int:
        """Nodes without a group."""
        return int(np.count_nonzero(self.of_N < 0))


def by_category(of_N: npt.NDArray[Any], names: Sequence[str]) -> Groups:
    """Groups that a catalog has named: ``of_N`` numbers ``names``, -1 where a node has no category."""
    return Groups(of_N.astype(np.int32), len(names), tuple(names))


def given(of_N: npt.NDArray[Any], n: int | None = None) -> Groups:
    """Groups from outside: numbers from 0, or below 0 for nodes without one. ``n`` defaults to the largest + 1.

    Raises DataError for a group that is no whole number, or not below ``n``.
    """
    of_N = np.asarray(of_N)
    if of_N.ndim != 1 or not np.issubdtype(of_N.dtype, np.integer):
        raise DataError(f"groups must be one whole number per node; got {of_N.dtype} of shape {of_N.shape}")
    largest = int(of_N.max(initial=-1))
    if n is not None and largest >= n:
        raise DataError(f"node {int(np.argmax(of_N >= n))} is in group {largest}; {n} groups are numbered 0 to {n - 1}")
    return Groups(np.maximum(of_N, UNKNOWN).astype(np.int32), largest + 1 if n is None else n)


def by_kmeans(vectors_NF: Vectors, k: int, *, seed: int) -> Groups:
    """k groups of nodes with like behaviour vectors, by k-means; rows of zeros are ``UNKNOWN``.

    k-means++, Lloyd until nothing moves, the best of ``STARTS``. Groups stand in order of size. There are fewer than k
    only where fewer than k vectors are distinct. Above ``SAMPLE`` nodes the centres are learned from a sample. Raises
    DataError if k exceeds the number of nodes with history, or a vector is not finite; ConfigError for k below 1.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if k < 1:
        raise ConfigError(f"k-means into {k} groups: the number of groups must be 1 or more")
    known = np.flatnonzero(_squares(vectors_NF))
    if k > len(known):
        raise DataError(
            f"k-means into {k:,} groups, but only {len(known):,} of {vectors_NF.shape[0]:,} nodes have history; "
            f"allowed are 1 to {len(known):,} groups"
        )
    rng = np.random.default_rng(seed)
    sample = known if len(known) <= SAMPLE else np.sort(rng.choice(known, SAMPLE, replace=False))
    solver = KMeans(k, n_init=STARTS, tol=0, random_state=int(rng.integers(2**31)), copy_x=False)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than k
        solver.fit(vectors_NF[sample])
    label_N = np.full(vectors_NF.shape[0], UNKNOWN)
    if len(sample) == len(known):
        label_N[known] = solver.labels_
    else:
        label_N[known] = _nearest(vectors_NF[known], solver.cluster_centers_.astype(np.float64))
    size = np.bincount(label_N[known], minlength=k)
    order = np.argsort(-size, kind="stable")[: np.count_nonzero(size)]
    rank = np.full(k + 1, UNKNOWN, dtype=np.int32)
    rank[order] = np.arange(len(order))
    of_N = rank[label_N]
    return Groups(of_N, len(order), centres_KF=means(vectors_NF, of_N, len(order)))


def objective(vectors_NF: Vectors, groups: Groups) -> float:
    """sum_k sum_{v in C_k} || b_v - mu_k ||_2, (4), over nodes with a group; 0 is best.

    mu_k is the group's centre, or where the groups have none the mean of its members (3).
    """
    centres = groups.centres_KF
    if centres is None:
        centres = means(vectors_NF, groups.of_N, groups.n)
    total = 0.0
    for rows, block in _blocks(vectors_NF):
        own = groups.of_N[rows]
        total += float(np.linalg.norm(block[own >= 0] - centres[own[own >= 0]], axis=1).sum())
    return total


def assign(groups: Groups, vectors_NF: Vectors) -> Groups:
    """``groups`` where nodes without one join the nearest centre, if they have history by now; no other node moves.

    ``vectors_NF`` may have more rows than there were nodes: the later ones are new. Ties go to the larger group.
    Groups without centres stay as they are, and new nodes are ``UNKNOWN``.
    """
    n_new = vectors_NF.shape[0] - len(groups)
    assert n_new >= 0
    of_N = np.concatenate([groups.of_N, np.full(n_new, UNKNOWN, dtype=np.int32)])
    if groups.centres_KF is not None:
        late = np.flatnonzero((of_N < 0) & (_squares(vectors_NF) > 0))
        of_N[late] = _nearest(vectors_NF[late], groups.centres_KF)
    return replace(groups, of_N=of_N)


def user_vectors(
    user_E: npt.NDArray[Any],
    item_E: npt.NDArray[Any],
    weight_E: npt.NDArray[Any] | None,
    items: Groups,
    n_users: int,
) -> Vectors:
    """b_u: how often each user's history met each group of items, rows of length 1 (or 0), float32, (U, groups)."""
    of_E = items.of_N[item_E]
    known = of_E >= 0
    weight = np.ones(len(of_E)) if weight_E is None else weight_E
    shape = (n_users, items.n)
    if items.n > WIDE:
        return _unit_rows(sp.csr_matrix((weight[known].astype(np.float64), (user_E[known], of_E[known])), shape))
    key = user_E[known].astype(np.int64) * items.n + of_E[known]
    return _unit_rows(np.bincount(key, weight[known], minlength=n_users * items.n).reshape(shape))


def item_vectors(
    user_E: npt.NDArray[Any],
    item_E: npt.NDArray[Any],
    weight_E: npt.NDArray[Any] | None,
    n_users: int,
    n_items: int,
    dim: int = 32,
    *,
    seed: int,
) -> Vectors:
    """b_i for items without categories: rows of length 1 (or 0), float32, (I, dim).

    Items of the same users are near: the (I, U) matrix of who met what, whose users each have length 1, in its ``dim``
    directions of largest singular value. Whether, not how often: on the demo market counts reach an agreement of .68
    with the planted clusters, logarithms .73, ones .77 (dim 32). Events of weight 0 do not count. Randomised (Halko
    et al. 2011), seeded; ``dim`` is cut to the rank that there can be. An item that these directions say nothing about
    has a row of zeros, too.
    """
    from sklearn.utils.extmath import randomized_svd

    met = slice(None) if weight_E is None else np.flatnonzero(weight_E)
    user, item = user_E[met], item_E[met]
    history_UI = sp.csr_matrix((np.ones(len(user)), (user, item)), (n_users, n_items))
    history_UI.data[:] = 1
    history_IU = _unit_rows(history_UI).T.tocsr()
    dim = min(dim, n_users, n_items)
    seed = int(np.random.default_rng(seed).integers(2**31))
    with threadpool_limits(1):
        directions_DU = randomized_svd(history_IU, dim, n_iter=4, random_state=seed)[2]
    vectors = history_IU @ directions_DU.T
    vectors[np.abs(vectors).max(1, initial=0) < _NOTHING] = 0
    return _unit_rows(vectors)


def agreement(groups: Groups, truth_N: npt.NDArray[Any]) -> float:
    """Adjusted mutual information with planted labels, over nodes that have a group and a label of 0 or more.

    1: the same partition; 0: as chance would have it; NaN where no node has both.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    both = (groups.of_N >= 0) & (truth_N >= 0)
    return float(adjusted_mutual_info_score(truth_N[both], groups.of_N[both])) if both.any() else float("nan")


def distinctive(
    group_E: npt.NDArray[Any], item_E: npt.NDArray[Any], weight_E: npt.NDArray[Any] | None, k: int, top: int = 3
) -> list[list[int]]:
    """For each of k groups the ``top`` items that set its events apart: by share x log(share / share in all events).

    The terms of the Kullback-Leibler divergence; an item that all groups like alike has 0. Ties by item number.
    """
    known = group_E >= 0
    group, item = group_E[known].astype(np.int64), item_E[known].astype(np.int64)
    weight = np.ones(len(group)) if weight_E is None else weight_E[known].astype(np.float64)
    n_items = int(item.max(initial=-1)) + 1
    key, place = np.unique(group * n_items + item, return_inverse=True)
    of, what = key // max(n_items, 1), key % max(n_items, 1)
    total_K = np.bincount(group, weight, minlength=k)
    overall_I = np.bincount(item, weight) / max(weight.sum(), 1e-300)
    share = np.bincount(place, weight) / np.maximum(total_K[of], 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.nan_to_num(share * np.log(share / overall_I[what]))
    order = np.lexsort((what, -gain, of))
    first_K = np.searchsorted(of[order], np.arange(k + 1))
    return [what[order[a : min(b, a + top)]].tolist() for a, b in pairwise(first_K)]


def _squares(vectors_NF: Vectors) -> Floats:
    """Squared length of each row. Raises DataError for a row that is not finite."""
    squares = np.zeros(vectors_NF.shape[0])
    for rows, block in _blocks(vectors_NF):
        squares[rows] = np.einsum("nf,nf->n", block, block)
    if not np.isfinite(squares).all():
        raise DataError(f"behaviour vectors must be finite; that of node {int(np.argmin(np.isfinite(squares)))} is not")
    return squares


def _nearest(vectors_NF: Vectors, centres_KF: Floats) -> npt.NDArray[np.int32]:
    """The nearest centre of each row, by differences: no rounding depends on the other rows; ties to the first."""
    nearest = np.zeros(vectors_NF.shape[0], dtype=np.int32)
    for rows, block in _blocks(vectors_NF):
        nearest[rows] = cdist(block, centres_KF, "sqeuclidean").argmin(1)
    return nearest


def means(vectors_NF: Vectors, of_N: npt.NDArray[np.int32], k: int) -> Floats:
    """mu_k (3), (K, F); zeros for a group without members."""
    members = np.flatnonzero(of_N >= 0)
    one_hot_KN = sp.csr_matrix((np.ones(len(members)), (of_N[members], members)), (k, len(of_N)))
    sums = one_hot_KN @ vectors_NF.astype(np.float64)
    sums = sums.toarray() if sp.issparse(sums) else sums
    means: Floats = sums / np.maximum(np.bincount(of_N[members], minlength=k), 1)[:, None]
    return means


def _blocks(vectors_NF: Vectors) -> Iterator[tuple[slice, Floats]]:
    """Dense float64 rows, few enough at a time."""
    size = max(1, _BLOCK // max(vectors_NF.shape[1], 1))
    for first in range(0, vectors_NF.shape[0], size):
        rows = slice(first, min(first + size, vectors_NF.shape[0]))
        block = vectors_NF[rows]
        yield rows, np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float64)


def _unit_rows(rows: Any) -> Any:
    """The rows, scaled to length 1, as float32; rows of zeros stay."""
    squares = rows.multiply(rows).sum(1).A1 if sp.issparse(rows) else np.einsum("nf,nf->n", rows, rows)
    scale = 1 / np.sqrt(np.where(squares > 0, squares, 1))
    return (
        (sp.diags(scale) @ rows).astype(np.float32) if sp.issparse(rows) else (rows * scale[:, None]).astype(np.float32)
    )
