"""How does an event enter a user's history? Machine code, imported when first needed; it checks no bounds.

The live items of a user are a list of ``Slabs`` without times, sorted by item: key the item, value ``arrival << 2 |
bits`` with the number of the event that put it there. Shape letters: E events, U users, F edges of the fit, I items.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from macrorec.graph.slab_kernels import kernel
from macrorec.graph.slabs import Slabs

Array = npt.NDArray[Any]

TARGET, MASKS = 1, 2
"""Bits of a pair: it has an event of the target behaviour; of one that masks."""


@kernel
def place_of(sorted_M: Array, first: int, last: int, value: int) -> int:
    """The first place of sorted_M[first:last] that is not below ``value``."""
    while first < last:
        middle = (first + last) >> 1
        if sorted_M[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def fitted(start_U: Array, item_F: Array, user: int, item: int) -> bool:
    """Whether the fit has this edge."""
    if user + 1 >= len(start_U):
        return False
    last = start_U[user + 1]
    at = place_of(item_F, start_U[user], last, item)
    return bool(at < last and item_F[at] == item)


@kernel
def _room(live: Slabs, user: int) -> bool:
    """Make room for one more in a user's list, moving it to the end of the pool; False where the pool is full."""
    size = live.size_N[user]
    if size < live.room_N[user]:
        return True
    room, new, first = 2 * size + 4, live.used[0], live.start_N[user]
    if new + room > len(live.key):
        return False
    for e in range(size):
        live.key[new + e], live.value[new + e] = live.key[first + e], live.value[first + e]
    live.start_N[user], live.room_N[user] = new, room
    live.used[0] += room
    return True


@kernel
def apply(
    live: Slabs,
    start_U: Array,
    item_F: Array,
    gone_U: Array,
    user_E: Array,
    item_E: Array,
    bits_E: Array,
    arrival_E: Array,
    events_U: Array,
    count_I: Array,
    grown_E: Array,
    done: int,
) -> int:
    """Count the events ``done :``, until the pool is full; the number that are counted.

    ``grown_E``: whether the item gained a user by the target behaviour, which ``count_I`` counts.
    """
    for e in range(done, len(user_E)):
        user, item, bits, arrival = user_E[e], item_E[e], bits_E[e], arrival_E[e]
        first = live.start_N[user]
        last = first + live.size_N[user]
        at = place_of(live.key, first, last, item)
        there = at < last and live.key[at] == item
        was = live.value[at] & 3 if there else 0
        if not there:
            at -= first
            if not _room(live, user):
                return e
            first = live.start_N[user]
            for f in range(first + live.size_N[user], first + at, -1):
                live.key[f], live.value[f] = live.key[f - 1], live.value[f - 1]
            at += first
            live.size_N[user] += 1
            live.key[at] = item
        began = arrival if (bits & 1) and not (was & 1) else (live.value[at] >> 2 if there else arrival)
        live.value[at] = (began << 2) | was | bits
        if (bits & 1) and not (was & 1) and (gone_U[user] or not fitted(start_U, item_F, user, item)):
            count_I[item] += 1
            grown_E[e] = True
        events_U[user] += 1
    return len(user_E)
