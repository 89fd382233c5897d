"""How is the macro graph read for one user and many items? Machine code, imported when first needed.

It does not hold the interpreter's lock, and checks no bounds but those of the nodes. Shape letters: see ``slabs``; B
items, K columns of a table, R recents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from macrorec.graph.candidates import Candidates
from macrorec.graph.prefetch import prefetch
from macrorec.graph.slab_kernels import kernel
from macrorec.graph.slabs import Rows, Slabs, State

Array = npt.NDArray[Any]
int64: Any = np.int64


@kernel
def _row(rows: Rows, n: int, first: int, out_K: Array) -> None:
    """out = rows[n], never below 0, in the columns from ``first`` on; zeros for n = -1."""
    x_NK, sparse, width = rows.dense_NK, rows.sparse, rows.width
    if n >= 0 and len(x_NK):
        for k in range(width):
            out_K[first + k] = max(x_NK[n, k], 0.0)
        return
    for k in range(width):
        out_K[first + k] = 0
    if n >= 0:
        for e in range(sparse.start_N[n], sparse.start_N[n] + sparse.size_N[n]):
            out_K[first + sparse.key[e]] = max(sparse.value[e], 0.0)


@kernel
def _recent(slabs: Slabs, n: int, out_R: Array) -> None:
    """The other nodes of the latest events of n, latest first; -1 beyond."""
    size = slabs.size_N[n] if n >= 0 else 0
    last = slabs.start_N[n] + size - 1 if n >= 0 else 0
    for r in range(len(out_R)):
        out_R[r] = slabs.key[last - r] if r < size else -1


@kernel
def _fetch_row(rows: Rows, n: int) -> None:
    """Ask for what ``_row`` will read first."""
    if len(rows.dense_NK):
        for k in range(0, rows.width, 8):
            prefetch(rows.dense_NK, n, k)
        prefetch(rows.dense_NK, n, rows.width - 1)
    else:
        prefetch(rows.sparse.start_N, n, 0)
        prefetch(rows.sparse.size_N, n, 0)


@kernel
def _fetch_list(slabs: Slabs, n: int) -> None:
    """Ask for the end of a list, whose place is near already."""
    last = slabs.start_N[n] + max(slabs.size_N[n] - 1, 0)
    if slabs.size_N[n]:
        prefetch(slabs.key, last, 0)
        prefetch(slabs.key, max(last - 16, slabs.start_N[n]), 0)


@kernel
def _pull(state: State, user: int, sum_P: Array) -> None:
    """sum = A_u2[user], summed from A_i1 over the user's events."""
    users, rows = state.users, state.item_hop1
    x_NK, sparse = rows.dense_NK, rows.sparse
    sum_P[:] = 0
    for e in range(users.start_N[user], users.start_N[user] + users.size_N[user]):
        _fetch_row(rows, int64(users.key[e]))
    for e in range(users.start_N[user], users.start_N[user] + users.size_N[user]):
        item, weight = int64(users.key[e]), np.float64(users.value[e])
        if len(x_NK):
            for k in range(len(sum_P)):
                sum_P[k] += weight * x_NK[item, k]
        else:
            for f in range(sparse.start_N[item], sparse.start_N[item] + sparse.size_N[item]):
                sum_P[sparse.key[f]] += weight * sparse.value[f]


@kernel
def read(
    state: State, n_users: int, n_items: int, user: int, item_B: Array, kind: int, sum_P: Array, out: Candidates
) -> None:
    """The columns of the type ``kind``; with the first type, what all types share. ``sum_P`` is room for a sum."""
    u, n_p, n_q = user if 0 <= user < n_users else -1, state.item_hop1.width, state.user_hop1.width
    out.user_volume_C[kind] = state.users.size_N[u] if u >= 0 else 0
    _row(state.user_hop1, u, kind * n_q, out.user_hop1_Q)
    if u >= 0 and state.heavy_U[u] >= 0:
        _row(state.heavy_hop2, int64(state.heavy_U[u]), kind * n_p, out.user_hop2_P)
    else:
        sum_P[:] = 0
        if u >= 0:
            _pull(state, u, sum_P)
        for p in range(n_p):
            out.user_hop2_P[kind * n_p + p] = max(sum_P[p], 0)
    if kind == 0:
        out.user[0], out.user[1] = u, state.user_group_U[u] if u >= 0 else -1
        _recent(state.users, u, out.user_recent_R)
    for b in range(len(item_B)):
        i = item_B[b] if 0 <= item_B[b] < n_items else -1
        out.item_B[b] = i
        if i >= 0:
            prefetch(state.items.size_N, i, 0)
            prefetch(state.items.start_N, i, 0)
            prefetch(state.item_group_I, i, 0)
            _fetch_row(state.item_hop1, i)
            _fetch_row(state.item_hop2, i)
    for b in range(len(item_B)):
        i = out.item_B[b]
        out.item_volume_BC[b, kind] = state.items.size_N[i] if i >= 0 else 0
        if i >= 0 and kind == 0:
            _fetch_list(state.items, i)
    for b in range(len(item_B)):
        _row(state.item_hop1, out.item_B[b], kind * n_p, out.item_hop1_BP[b])
    for b in range(len(item_B)):
        _row(state.item_hop2, out.item_B[b], kind * n_q, out.item_hop2_BQ[b])
    if kind == 0:
        for b in range(len(item_B)):
            out.item_group_B[b] = state.item_group_I[out.item_B[b]] if out.item_B[b] >= 0 else -1
        for b in range(len(item_B)):
            _recent(state.items, out.item_B[b], out.item_recent_BR[b])
