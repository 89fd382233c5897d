"""How does the macro graph lie in memory? Lists that grow, and rows of counts, as plain arrays for compiled loops.

Shape letters: N nodes of one side, E events, U users, I items, P groups of users, Q groups of items, H heavy users.
Arrays of nodes may be longer than there are nodes: what stands behind is zero, and waits for new ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


class Slabs(NamedTuple):
    """A list per node, all in one pool: the entries of node n are start_N[n] : start_N[n] + size_N[n].

    A list that outgrows its room moves to the end of the used part with twice the room; a full pool is packed anew.
    """

    start_N: Ints
    size_N: Ints
    room_N: Ints
    used: Ints
    """Entries of the pool that are given away, shape (1,)."""
    key: npt.NDArray[np.int32]
    """Per entry: the other node of an event, the column of a count, or the number of a heavy user."""
    value: Array
    """Per entry: its weight, float32, or its count, float64."""
    time: Ints
    """Per entry: its time; empty where entries have none."""


class Rows(NamedTuple):
    """A table of counts, shape (N, width): dense, or per row only the columns that were counted, sorted."""

    dense_NK: npt.NDArray[np.float64]
    """The table; without a row where it is kept sparse."""
    sparse: Slabs
    """Column and count per entry; without a node where the table is dense."""
    width: int


class Events(NamedTuple):
    """E events, which lie inside the tables: int64, int64, float32, int64."""

    user_E: Array
    item_E: Array
    weight_E: Array
    time_E: Array


class Impressions(NamedTuple):
    """S impressions, each after the first ``before_S`` of some events, which never falls; node -1: a new one."""

    user_S: Ints
    item_S: Ints
    before_S: Ints


class Columns(NamedTuple):
    """What ``replay`` reads: those arrays of ``Features`` that change with events."""

    user_hop1_SQ: Array
    user_hop2_SP: Array
    item_hop1_SP: Array
    item_hop2_SQ: Array
    user_recent_SR: Array
    item_recent_SR: Array
    user_volume_SC: Array
    item_volume_SC: Array


class State(NamedTuple):
    """All that a macro graph knows."""

    users: Slabs
    """The events of each user, by (time, arrival): item and weight."""
    items: Slabs
    """The events of each item, by (time, arrival): user and weight."""
    user_group_U: npt.NDArray[np.int32]
    item_group_I: npt.NDArray[np.int32]
    user_weight_U: npt.NDArray[np.float64]
    """Sum of the weights of each user's events."""
    user_hop1: Rows
    """A_u1, (U, Q)."""
    item_hop1: Rows
    """A_i1, (I, P)."""
    item_hop2: Rows
    """A_i2, (I, Q), less what was missed."""
    heavy_hop2: Rows
    """A_u2 of heavy users, (H, P)."""
    heavy_U: npt.NDArray[np.int32]
    """Row of each user in ``heavy_hop2``; -1 for all who are not heavy."""
    heavy_users: Slabs
    """For each item the heavy users who met it, by their rows, and r_ui."""
    n_heavy: Ints
    """Heavy users, shape (1,)."""
    missed: npt.NDArray[np.float64]
    """Paths that ``item_hop2`` lacks, shape (1,)."""
    pull: int
    """A user of more events is heavy."""
    push: int
    """Of a user's other items so many, the latest, learn of an event at once."""


def empty_slabs(n: int, dtype: Any, *, timed: bool = False, pool: int = 0) -> Slabs:
    """Slabs of n nodes without entries."""
    start, size, room = (np.zeros(n, np.int64) for _ in range(3))
    time = np.empty(pool if timed else 0, np.int64)
    return Slabs(start, size, room, np.zeros(1, np.int64), np.empty(pool, np.int32), np.empty(pool, dtype), time)


def slabs_for(size_N: Ints, dtype: Any, *, timed: bool = False, free: int = 0) -> Slabs:
    """Slabs with room for these numbers of entries and a quarter more, none of them filled.

    Beyond that the pool has ``free`` unused entries, or a quarter of all, if that is more.
    """
    room_N = size_N + (size_N >> 2) + 2 * (size_N > 0)
    end_N = np.cumsum(room_N)
    used = int(end_N[-1]) if len(end_N) else 0
    empty = empty_slabs(0, dtype, timed=timed, pool=used + max(free, used >> 2, 64))
    return empty._replace(
        start_N=end_N - room_N, size_N=np.zeros_like(size_N), room_N=room_N, used=np.array([used], np.int64)
    )


def packed(slabs: Slabs, free: int = 0, *, timed: bool | None = None) -> Slabs:
    """The same lists without holes, with room to grow and at least ``free`` unused entries in the pool."""
    from macrorec.graph import slab_kernels

    timed = len(slabs.time) > 0 if timed is None else timed
    new = slabs_for(slabs.size_N, slabs.value.dtype, timed=timed, free=free)
    slab_kernels.move(slabs, new)
    return new


def lengthened(slabs: Slabs, n: int) -> Slabs:
    """The same lists, and empty ones for new nodes, n in all."""
    return slabs._replace(**{name: longer(getattr(slabs, name), n) for name in ("start_N", "size_N", "room_N")})


def contents(slabs: Slabs, n: int) -> tuple[Ints, Array, Array, Array]:
    """Sizes of the lists of the first n nodes, and their keys, values, times, one list after the other."""
    size_N = slabs.size_N[:n]
    at = np.repeat(slabs.start_N[:n] - (np.cumsum(size_N) - size_N), size_N) + np.arange(size_N.sum())
    return size_N.copy(), slabs.key[at], slabs.value[at], slabs.time[at] if len(slabs.time) else slabs.time


def from_contents(size_N: Ints, key: Array, value: Array, time: Array | None) -> Slabs:
    """The slabs that ``contents`` was taken from, with room to grow; without times where entries have none."""
    end_N, times = np.cumsum(size_N), np.empty(0, np.int64) if time is None else time
    tight = Slabs(end_N - size_N, size_N, size_N, np.array([len(key)], np.int64), key, value, times)
    return packed(tight, timed=time is not None)


def empty_rows(n: int, width: int, *, dense: bool) -> Rows:
    """A table of zeros."""
    if dense:
        return Rows(np.zeros((n, width)), empty_slabs(0, np.float64), width)
    return Rows(np.empty((0, width)), empty_slabs(n, np.float64), width)


def lengthened_rows(rows: Rows, n: int) -> Rows:
    """The same table with rows of zeros for new nodes, n rows in all."""
    if is_dense(rows):
        return rows._replace(dense_NK=longer(rows.dense_NK, n))
    return rows._replace(sparse=lengthened(rows.sparse, n))


def is_dense(rows: Rows) -> bool:
    """Whether the table is kept dense; one without rows counts as dense."""
    return not len(rows.sparse.start_N)


def longer(array: Array, n: int, fill: int = 0) -> Array:
    """``array`` with ``fill`` behind it, n rows in all."""
    new = np.full((n, *array.shape[1:]), fill, array.dtype)
    new[: len(array)] = array
    return new


def bytes_of(state: Any) -> int:
    """Bytes of all arrays in a (nested) tuple."""
    if isinstance(state, tuple):
        return sum(bytes_of(part) for part in state)
    return state.nbytes if isinstance(state, np.ndarray) else 0
