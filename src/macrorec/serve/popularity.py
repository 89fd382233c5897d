"""Which items are most popular, over all and in each group, after every event?

Counts rise one by one, so an item enters the best of its group only when it gains: each group keeps a buffer of its
best, and forgets the worse half when that is full. Shape letters: I items, G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@njit(cache=True, nogil=True)
def _offer(items, count_I, group_I, inside_I, buffer_GM, size_G, least_G, lowest_G):  # type: ignore[no-untyped-def]
    """Let items that gained enter the buffers of their groups; the place of the first whose buffer is full."""
    for place in range(len(items)):
        item = items[place]
        group = group_I[item]
        if group < 0 or inside_I[item]:
            continue
        count = count_I[item]
        if count < least_G[group] or (count == least_G[group] and item > lowest_G[group]):
            continue
        if size_G[group] == buffer_GM.shape[1]:
            return place
        buffer_GM[group, size_G[group]] = item
        size_G[group] += 1
        inside_I[item] = True
    return len(items)


class Popularity:
    """The best of each group by (-count, number), at least ``top`` of them where the group has as many."""

    def __init__(self, count_I: Ints, group_I: Array, n_groups: int, top: int) -> None:
        """``group_I``: the group of each item, -1 for none."""
        self.top = top
        self._group_I = np.ascontiguousarray(group_I, dtype=np.int32)
        self._buffer_GM = np.zeros((n_groups, 2 * top), np.int64)
        self._size_G = np.zeros(n_groups, np.int64)
        self._least_G = np.zeros(n_groups, np.int64)
        self._lowest_G = np.full(n_groups, np.iinfo(np.int64).max)
        self._inside_I = np.zeros(len(self._group_I), np.bool_)
        order = np.lexsort((np.arange(len(self._group_I)), -count_I[: len(self._group_I)]))
        grouped = order[np.argsort(self._group_I[order], kind="stable")]
        start_G = np.searchsorted(self._group_I[grouped], np.arange(n_groups + 1))
        for group in range(n_groups):
            self._keep(group, grouped[start_G[group] : start_G[group + 1]], count_I)

    def grow(self, n_items: int, group_I: Array) -> None:
        """New items, ``n_items`` in all, of these groups."""
        if n_items > len(self._inside_I):
            room = max(n_items, len(self._inside_I) * 3 // 2 + 8)
            inside, group = np.zeros(room, np.bool_), np.full(room, -1, np.int32)
            inside[: len(self._inside_I)], group[: len(self._group_I)] = self._inside_I, self._group_I
            self._inside_I, self._group_I = inside, group
        self._group_I[n_items - len(group_I) : n_items] = group_I

    def gained(self, items: Ints, count_I: Ints) -> None:
        """These items have gained users, or are new."""
        columns = (self._group_I, self._inside_I, self._buffer_GM, self._size_G, self._least_G, self._lowest_G)
        while (place := _offer(items, count_I, *columns)) < len(items):
            group = int(self._group_I[items[place]])
            self._keep(group, self.best(group, count_I), count_I)
            items = items[place:]

    def lost(self, items: Ints, count_I: Ints) -> None:
        """These items have lost users: the best of their groups are chosen anew."""
        for group in np.unique(self._group_I[items]).tolist():
            if group >= 0:
                members = np.flatnonzero(self._group_I == group)
                order = np.lexsort((members, -count_I[members]))
                self._keep(group, members[order], count_I)

    def best(self, group: int, count_I: Ints, n: int | None = None) -> Ints:
        """The n best items of a group, all that are known by default."""
        items = self._buffer_GM[group, : self._size_G[group]]
        return items[np.lexsort((items, -count_I[items]))][:n]

    def _keep(self, group: int, best: Ints, count_I: Ints) -> None:
        """Keep the ``top`` first of a group, given in order."""
        self._inside_I[self._buffer_GM[group, : self._size_G[group]]] = False
        kept = best[: self.top]
        self._buffer_GM[group, : len(kept)] = kept
        self._size_G[group] = len(kept)
        self._inside_I[kept] = True
        if len(best) > self.top:
            self._least_G[group], self._lowest_G[group] = count_I[kept[-1]], kept[-1]
        else:
            self._least_G[group], self._lowest_G[group] = 0, np.iinfo(np.int64).max
