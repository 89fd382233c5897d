"""How do events change the macro graph, and how is it read? Machine code, imported when first needed.

None holds the interpreter's lock; none checks bounds: callers do. Pools cannot grow in here: before anything of an
event is counted, ``_fits`` asks whether all that it may touch has room. If not, the kernel stops there, ``need`` says
how much is wanted of each pool, the caller provides it and goes on.

All this stands in one file, since numba's cache of compiled loops sees changes of their own file only. Shape letters:
see ``slabs``; B and S impressions, R recents, K columns of a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from macrorec.graph.slab_kernels import kernel
from macrorec.graph.slabs import Columns, Events, Impressions, Rows, Slabs, State

Array = npt.NDArray[Any]
int64: Any = np.int64

USERS, ITEMS, USER_HOP1, ITEM_HOP1, ITEM_HOP2, HEAVY_HOP2, HEAVY_USERS, HEAVY = range(8)
"""Places in ``need``: free entries of each pool, and at last rows for heavy users."""
_GROWTH = 8
"""A sparse row that fills one by one, moving as it grows, takes less than so many times its columns and one."""


@kernel
def _wanted(slabs: Slabs, n: int) -> int:
    """Entries of the pool that one more for node n would take: none while its list has room."""
    size = slabs.size_N[n]
    return 0 if size < slabs.room_N[n] else 2 * size + 4


@kernel
def _open(slabs: Slabs, n: int, place: int) -> int:
    """Make room for an entry at this place of the list of node n; its place in the pool."""
    room, size, first = _wanted(slabs, n), slabs.size_N[n], slabs.start_N[n]
    timed = len(slabs.time) > 0
    if room:
        new = slabs.used[0]
        for e in range(size):
            slabs.key[new + e], slabs.value[new + e] = slabs.key[first + e], slabs.value[first + e]
            if timed:
                slabs.time[new + e] = slabs.time[first + e]
        slabs.start_N[n], slabs.room_N[n], first = new, room, new
        slabs.used[0] += room
    for e in range(first + size, first + place, -1):
        slabs.key[e], slabs.value[e] = slabs.key[e - 1], slabs.value[e - 1]
        if timed:
            slabs.time[e] = slabs.time[e - 1]
    slabs.size_N[n] += 1
    return int(first + place)


@kernel
def _after(array: Array, first: int, last: int, value: int) -> int:
    """The first place of the sorted array[first:last] that is beyond ``value``."""
    while first < last:
        middle = (first + last) >> 1
        if array[middle] <= value:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def _insert(slabs: Slabs, n: int, key: int, value: float, time: int) -> None:
    """An event of node n, behind all that are not later."""
    first, last = slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]
    late = first < last and slabs.time[last - 1] > time
    at = _open(slabs, n, (_after(slabs.time, first, last, time) if late else last) - first)
    slabs.key[at], slabs.value[at], slabs.time[at] = key, value, time


@kernel
def _delete(slabs: Slabs, n: int, at: int) -> None:
    """The event of node n at this place of the pool is gone."""
    for e in range(at, slabs.start_N[n] + slabs.size_N[n] - 1):
        slabs.key[e], slabs.value[e], slabs.time[e] = slabs.key[e + 1], slabs.value[e + 1], slabs.time[e + 1]
    slabs.size_N[n] -= 1


@kernel
def _add_entry(slabs: Slabs, n: int, key: int, value: float) -> None:
    """list_n[key] += value, in a list without times that is sorted by key."""
    first, last = slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]
    at = _after(slabs.key, first, last, key - 1)
    if at < last and slabs.key[at] == key:
        slabs.value[at] += value
    else:
        at = _open(slabs, n, at - first)
        slabs.key[at], slabs.value[at] = key, value


@kernel
def _add(rows: Rows, n: int, k: int, value: float) -> None:
    """rows[n, k] += value."""
    if len(rows.dense_NK):
        rows.dense_NK[n, k] += value
    else:
        _add_entry(rows.sparse, n, k, value)


@kernel
def _add_row(rows: Rows, n: int, source: Rows, m: int, weight: float) -> None:
    """rows[n] += weight x source[m]."""
    x_NK, y_MK = rows.dense_NK, source.dense_NK
    if len(x_NK) and len(y_MK):
        for k in range(x_NK.shape[1]):
            x_NK[n, k] += weight * y_MK[m, k]
    elif len(y_MK):
        for k in range(y_MK.shape[1]):
            if y_MK[m, k] != 0:
                _add_entry(rows.sparse, n, k, weight * y_MK[m, k])
    else:
        first = source.sparse.start_N[m]
        for e in range(first, first + source.sparse.size_N[m]):
            _add(rows, n, int64(source.sparse.key[e]), weight * source.sparse.value[e])


@kernel
def _add_column(rows: Rows, slabs: Slabs, first: int, last: int, k: int, weight: float) -> None:
    """rows[n_e, k] += weight x w_e for the entries ``first : last`` of a list, of nodes n_e."""
    x_NK, key, value = rows.dense_NK, slabs.key, slabs.value
    if len(x_NK):
        for e in range(first, last):
            x_NK[key[e], k] += weight * value[e]
    else:
        for e in range(first, last):
            _add_entry(rows.sparse, int64(key[e]), k, weight * value[e])


@kernel
def _holds(slabs: Slabs, wanted: int) -> bool:
    """Whether so many entries of the pool are free."""
    return bool(slabs.used[0] + wanted <= len(slabs.key))


@kernel
def _enough(state: State, need: Array) -> bool:
    """Whether every pool holds what is needed."""
    ok = need[HEAVY] <= max(len(state.heavy_hop2.dense_NK), len(state.heavy_hop2.sparse.start_N))
    ok &= _holds(state.users, need[USERS]) and _holds(state.items, need[ITEMS])
    ok &= _holds(state.user_hop1.sparse, need[USER_HOP1]) and _holds(state.item_hop1.sparse, need[ITEM_HOP1])
    ok &= _holds(state.item_hop2.sparse, need[ITEM_HOP2]) and _holds(state.heavy_hop2.sparse, need[HEAVY_HOP2])
    return bool(ok) and _holds(state.heavy_users, need[HEAVY_USERS])


@kernel
def _heavy_fits(state: State, user: int, need: Array) -> None:
    """Add to ``need`` what ``_make_heavy`` may take."""
    users = state.users
    need[HEAVY] = state.n_heavy[0] + 1
    for e in range(users.start_N[user], users.start_N[user] + users.size_N[user]):
        need[HEAVY_USERS] += _wanted(state.heavy_users, int64(users.key[e]))
    if not len(state.heavy_hop2.dense_NK):
        need[HEAVY_HOP2] += _GROWTH * state.heavy_hop2.width + _GROWTH


@kernel
def _fits(state: State, user: int, item: int, reach: int, need: Array) -> bool:
    """Whether there is room for all that an event may touch, with the user's latest ``reach`` items."""
    need[:] = 0
    need[USERS], need[ITEMS] = _wanted(state.users, user), _wanted(state.items, item)
    row = state.heavy_U[user]
    becomes_heavy = row < 0 and state.users.size_N[user] >= state.pull
    if row >= 0 or becomes_heavy:
        need[HEAVY_USERS] = _wanted(state.heavy_users, item)
    if not len(state.user_hop1.dense_NK):
        need[USER_HOP1] = _wanted(state.user_hop1.sparse, user)
    if not len(state.item_hop1.dense_NK):
        need[ITEM_HOP1] = _wanted(state.item_hop1.sparse, item)
    if not len(state.item_hop2.dense_NK):
        need[ITEM_HOP2] = _GROWTH * state.item_hop2.width + _GROWTH
        first = state.users.start_N[user]
        last = first + state.users.size_N[user]
        for e in range(max(first, last - reach), last):
            need[ITEM_HOP2] += _wanted(state.item_hop2.sparse, int64(state.users.key[e]))
    if not len(state.heavy_hop2.dense_NK):
        if row >= 0:
            need[HEAVY_HOP2] += _GROWTH * state.heavy_hop2.width + _GROWTH
        first = state.heavy_users.start_N[item]
        for e in range(first, first + state.heavy_users.size_N[item]):
            need[HEAVY_HOP2] += _wanted(state.heavy_hop2.sparse, int64(state.heavy_users.key[e]))
    if becomes_heavy:
        _heavy_fits(state, user, need)
    return _enough(state, need)


@kernel
def _make_heavy(state: State, user: int) -> None:
    """A row of its own for this user, who from now on is listed with its items."""
    users, row = state.users, state.n_heavy[0]
    for e in range(users.start_N[user], users.start_N[user] + users.size_N[user]):
        item, weight = int64(users.key[e]), np.float64(users.value[e])
        _add_row(state.heavy_hop2, row, state.item_hop1, item, weight)
        _add_entry(state.heavy_users, item, row, weight)
    state.heavy_U[user] = row
    state.n_heavy[0] += 1


@kernel
def make_heavy(state: State, user_H: Array, done: int, need: Array) -> int:
    """Rows for the users ``done :``, until room is short; the number that have one."""
    for h in range(done, len(user_H)):
        need[:] = 0
        _heavy_fits(state, user_H[h], need)
        if not _enough(state, need):
            return h
        _make_heavy(state, user_H[h])
    return len(user_H)


@kernel
def _count(state: State, user: int, item: int, weight: float, time: int) -> None:
    """One more event. r_ui, A_u1[u] and A_i1[i] gain its weight; A_i2 and kept rows of A_u2 its paths, each once."""
    users, p, q = state.users, int64(state.user_group_U[user]), int64(state.item_group_I[item])
    first, last = users.start_N[user], users.start_N[user] + users.size_N[user]
    _add_row(state.item_hop2, item, state.user_hop1, user, weight)  # from the item, over the user, to its other events
    if q >= 0:
        _add(state.user_hop1, user, q, weight)
        _add(state.item_hop2, item, q, weight * weight)  # and back to the item
        since = max(first, last - state.push)
        _add_column(state.item_hop2, users, since, last, q, weight)  # from the user's latest other events to this one
        if since > first:
            pushed = 0.0
            for e in range(since, last):
                pushed += users.value[e]
            state.missed[0] += weight * (state.user_weight_U[user] - pushed)

    row, listed = int64(state.heavy_U[user]), state.heavy_users
    if row >= 0:
        _add_row(state.heavy_hop2, row, state.item_hop1, item, weight)  # from the user, over the item, to all before
        _add_entry(listed, item, row, weight)
    if p >= 0:
        _add(state.item_hop1, item, p, weight)
        first = listed.start_N[item]  # from all of them, itself too, to it
        _add_column(state.heavy_hop2, listed, first, first + listed.size_N[item], p, weight)

    _insert(users, user, item, weight, time)
    _insert(state.items, item, user, weight, time)
    state.user_weight_U[user] += weight
    if row < 0 and users.size_N[user] > state.pull:
        _make_heavy(state, user)


@kernel
def _discount(state: State, user: int, item: int, at: int) -> None:
    """``_count`` undone, for the event at place ``at`` of the user's list."""
    users, p, q = state.users, int64(state.user_group_U[user]), int64(state.item_group_I[item])
    value, time = users.value[at], users.time[at]
    weight = np.float64(value)
    row, listed = int64(state.heavy_U[user]), state.heavy_users
    if p >= 0:
        first = listed.start_N[item]
        _add_column(state.heavy_hop2, listed, first, first + listed.size_N[item], p, -weight)
        _add(state.item_hop1, item, p, -weight)
    if row >= 0:
        _add_entry(listed, item, row, -weight)
        _add_row(state.heavy_hop2, row, state.item_hop1, item, -weight)

    # All its paths are taken from A_i2, also those that were missed: so exact - kept stays, and ``missed`` does.
    _add_row(state.item_hop2, item, state.user_hop1, user, -weight)
    _delete(users, user, at)
    if q >= 0:
        _add(state.user_hop1, user, q, -weight)
        first = users.start_N[user]
        _add_column(state.item_hop2, users, first, first + users.size_N[user], q, -weight)
    _delete(state.items, item, _find(state.items, item, user, value, time, True, True, 0))
    state.user_weight_U[user] -= weight


@kernel
def add(state: State, events: Events, done: int, need: Array) -> int:
    """Count the events ``done :``, until room is short; the number that are counted."""
    for e in range(done, len(events.user_E)):
        user, item = events.user_E[e], events.item_E[e]
        if not _fits(state, user, item, state.push, need):
            return e
        _count(state, user, item, np.float64(events.weight_E[e]), events.time_E[e])
    return len(events.user_E)


@kernel
def _find(
    slabs: Slabs, n: int, other: int, weight: float, time: int, same_weight: bool, same_time: bool, skip: int
) -> int:
    """The latest event of node n with ``other`` (and weight, time, if asked), after ``skip`` later ones; -1: none."""
    first, last = slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]
    if same_time:
        last = _after(slabs.time, first, last, time)
    for e in range(last - 1, first - 1, -1):
        if same_time and slabs.time[e] != time:
            break
        if slabs.key[e] == other and not (same_weight and slabs.value[e] != weight):
            if skip == 0:
                return e
            skip -= 1
    return -1


@kernel
def first_lacking(state: State, events: Events, same_weight: bool, same_time: bool, again_E: Array) -> int:
    """The first event that is not there (``again_E``: how many like it the batch removes before); -1 if all are."""
    for e in range(len(events.user_E)):
        what = events.item_E[e], events.weight_E[e], events.time_E[e]
        if _find(state.users, events.user_E[e], *what, same_weight, same_time, again_E[e]) < 0:
            return e
    return -1


@kernel
def remove(state: State, events: Events, same_weight: bool, same_time: bool, done: int, need: Array) -> int:
    """Take back the events ``done :``, which are there, until room is short; the number that are gone."""
    for e in range(done, len(events.user_E)):
        user, item = events.user_E[e], events.item_E[e]
        if not _fits(state, user, item, state.users.size_N[user], need):
            return e
        at = _find(state.users, user, item, events.weight_E[e], events.time_E[e], same_weight, same_time, 0)
        _discount(state, user, item, at)
    return len(events.user_E)


@kernel
def read(rows: Rows, number_B: Array, out_BK: Array, lo: int, hi: int) -> None:
    """out_b = rows[number_b], never below 0: what was missed and then taken back is. Zeros if the number is -1."""
    x_NK, sparse = rows.dense_NK, rows.sparse
    for b in range(lo, hi):
        n = number_B[b]
        dense = n >= 0 and len(x_NK) > 0
        for k in range(out_BK.shape[1]):
            out_BK[b, k] = max(x_NK[n, k], 0) if dense else 0
        if n >= 0 and not dense:
            for e in range(sparse.start_N[n], sparse.start_N[n] + sparse.size_N[n]):
                out_BK[b, sparse.key[e]] = max(sparse.value[e], 0)


@kernel
def read_user_hop2(state: State, user_B: Array, acc: Rows, out_BP: Array, lo: int, hi: int) -> None:
    """out_b = A_u2[user_b]: a heavy user's row, or else sum_e w_e A_i1[i_e] over its events, in the row ``acc``."""
    users, x_NK, y_1K = state.users, state.item_hop1.dense_NK, acc.dense_NK
    for b in range(lo, hi):
        user = user_B[b]
        if user >= 0 and state.heavy_U[user] >= 0:
            read(state.heavy_hop2, state.heavy_U[user : user + 1], out_BP[b : b + 1], 0, 1)
            continue
        y_1K[0, :] = 0
        size = users.size_N[user] if user >= 0 else 0
        for e in range(users.start_N[user], users.start_N[user] + size):
            item, weight = int64(users.key[e]), np.float64(users.value[e])
            if len(x_NK):
                for k in range(acc.width):
                    y_1K[0, k] += weight * x_NK[item, k]
            else:
                _add_row(acc, 0, state.item_hop1, item, weight)
        for k in range(acc.width):
            out_BP[b, k] = max(y_1K[0, k], 0)


@kernel
def read_recent(slabs: Slabs, number_B: Array, out_BR: Array, lo: int, hi: int) -> None:
    """out_b = the other nodes of the latest events of number_b, latest first; -1 beyond, and if the number is -1."""
    for b in range(lo, hi):
        n = number_B[b]
        size = slabs.size_N[n] if n >= 0 else 0
        for r in range(out_BR.shape[1]):
            out_BR[b, r] = slabs.key[slabs.start_N[n] + size - 1 - r] if r < size else -1


@kernel
def replay(state: State, events: Events, seen: Impressions, acc: Rows, out: Columns, done: Array, need: Array) -> bool:
    """Count events and read impressions in turn, from ``done`` of either, until room is short; whether all is done."""
    n_events, n_seen = len(events.user_E), len(seen.user_S)
    for s in range(done[1], n_seen + 1):
        before = seen.before_S[s] if s < n_seen else n_events
        for e in range(done[0], before):
            user, item = events.user_E[e], events.item_E[e]
            if not _fits(state, user, item, state.push, need):
                done[0], done[1] = e, s
                return False
            _count(state, user, item, np.float64(events.weight_E[e]), events.time_E[e])
        done[0] = before
        if s < n_seen:
            read(state.user_hop1, seen.user_S, out.user_hop1_SQ, s, s + 1)
            read_user_hop2(state, seen.user_S, acc, out.user_hop2_SP, s, s + 1)
            read_recent(state.users, seen.user_S, out.user_recent_SR, s, s + 1)
            read(state.item_hop1, seen.item_S, out.item_hop1_SP, s, s + 1)
            read(state.item_hop2, seen.item_S, out.item_hop2_SQ, s, s + 1)
            read_recent(state.items, seen.item_S, out.item_recent_SR, s, s + 1)
            out.user_volume_SC[s, 0] = state.users.size_N[seen.user_S[s]] if seen.user_S[s] >= 0 else 0
            out.item_volume_SC[s, 0] = state.items.size_N[seen.item_S[s]] if seen.item_S[s] >= 0 else 0
    return True
