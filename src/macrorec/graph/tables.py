"""How are the tables of the macro graph counted from its events, and how do they grow?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from macrorec.graph.groups import UNKNOWN, Groups
from macrorec.graph.slabs import (
    Events,
    Rows,
    Slabs,
    State,
    empty_rows,
    empty_slabs,
    lengthened,
    lengthened_rows,
    longer,
    packed,
    slabs_for,
)

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

DENSE_BYTES = 1 << 30
"""A table up to this size is dense, if nothing else is asked for."""
NEEDS = ("users", "items", "user_hop1", "item_hop1", "item_hop2", "heavy_hop2", "heavy_users")
"""The pools that kernels may find too small, in their order; a last number is that of rows for heavy users."""
_SERIAL = 1 << 18
"""Additions below which one thread is faster than handing out blocks."""
_BLOCKS_PER_THREAD = 8
"""So that a row of very many events, which one thread sums, holds up few others."""


def lists(events: Events, n_users: int, n_items: int) -> tuple[Slabs, Slabs]:
    """The events of each user and of each item, by (time, arrival)."""
    empty = (empty_slabs(max(n, 1), np.float32, timed=True) for n in (n_users, n_items))
    return longer_lists((next(empty), next(empty)), events)


def longer_lists(old: tuple[Slabs, Slabs], events: Events) -> tuple[Slabs, Slabs]:
    """The lists ``old`` of users and of items with these events, too, by (time, arrival); ``old`` stays as it is."""
    from macrorec.graph import slab_kernels

    if (events.time_E[1:] < events.time_E[:-1]).any():
        order = np.argsort(events.time_E, kind="stable")
        events = Events(*(column[order] for column in events))
    user_E, item_E, weight_E, time_E = events

    def by_node(before: Slabs, node_E: Ints, other_E: Ints) -> Slabs:
        added_N = np.bincount(node_E, minlength=len(before.size_N))
        slabs = slabs_for(before.size_N + added_N, np.float32, timed=True)
        slab_kernels.move(before, slabs)
        slab_kernels.fill(slabs, node_E, other_E, weight_E, time_E)
        most = int(added_N.max(initial=0))
        room = np.empty(most, np.int32), np.empty(most, np.float32), np.empty(most, np.int64)
        slab_kernels.merge(slabs, before.size_N, *room)
        return slabs

    if torch.get_num_threads() == 1 or len(user_E) < _SERIAL:
        return by_node(old[0], user_E, item_E), by_node(old[1], item_E, user_E)
    with ThreadPoolExecutor(1) as pool:
        of_users = pool.submit(by_node, old[0], user_E, item_E)
        of_items = by_node(old[1], item_E, user_E)
    return of_users.result(), of_items


def counted(
    user_slabs: Slabs, item_slabs: Slabs, users: Groups, items: Groups, *, pull: int, push: int, dense: bool | None
) -> tuple[State, Ints]:
    """The state of these events, in one pass over them per hop; and the users to be made heavy, which none is yet."""
    from macrorec.graph import slab_kernels

    n_users, n_items = len(user_slabs.start_N), len(item_slabs.start_N)
    user_group = longer(users.of_N.astype(np.int32), n_users, UNKNOWN)
    item_group = longer(items.of_N.astype(np.int32), n_items, UNKNOWN)
    assert UNKNOWN <= user_group.min() <= user_group.max() < max(users.n, 1)
    assert UNKNOWN <= item_group.min() <= item_group.max() < max(items.n, 1)

    def table(slabs: Slabs, width: int, group: Array, source: Rows | None = None) -> Rows:
        kept_dense = len(slabs.start_N) * width * 8 <= DENSE_BYTES if dense is None else dense
        return _table(slabs, width, group, source, dense=kept_dense)

    none = np.empty(0, np.int32)
    user_hop1 = table(user_slabs, items.n, item_group)
    item_hop1 = table(item_slabs, users.n, user_group)
    item_hop2 = table(item_slabs, items.n, none, user_hop1)
    heavy = np.flatnonzero(user_slabs.size_N > pull)
    weight = np.zeros(n_users)
    in_blocks(lambda lo, hi: slab_kernels.sum_weights(user_slabs, weight, lo, hi), n_users, len(user_slabs.key))
    state = State(
        users=user_slabs,
        items=item_slabs,
        user_group_U=user_group,
        item_group_I=item_group,
        user_weight_U=weight,
        user_hop1=user_hop1,
        item_hop1=item_hop1,
        item_hop2=item_hop2,
        heavy_hop2=empty_rows(len(heavy) + 1, users.n, dense=len(item_hop1.dense_NK) > 0),
        heavy_U=np.full(n_users, -1, np.int32),
        heavy_users=empty_slabs(n_items, np.float64),
        n_heavy=np.zeros(1, np.int64),
        missed=np.zeros(1),
        pull=pull,
        push=push,
    )
    return state, heavy


def _table(slabs: Slabs, width: int, group_M: Array, source: Rows | None, *, dense: bool) -> Rows:
    """Row n: the sum over the events of n of their other nodes' groups, one-hot, or of their rows of ``source``."""
    from macrorec.graph import slab_kernels

    n, cost = len(slabs.start_N), int(slabs.size_N.sum())
    rows = empty_rows(n, width, dense=dense)
    source = empty_rows(0, 0, dense=False) if source is None else source
    if dense and len(group_M):
        in_blocks(lambda lo, hi: slab_kernels.sum_groups(slabs, group_M, rows.dense_NK, lo, hi), n, cost)
    elif dense:
        in_blocks(lambda lo, hi: slab_kernels.sum_rows(slabs, source, rows.dense_NK, lo, hi), n, cost * width)
    else:
        rule, cost = (group_M, source), 16 * cost
        in_blocks(lambda lo, hi: slab_kernels.sum_sparse(slabs, *rule, rows.sparse, True, width, lo, hi), n, cost)
        filled = slabs_for(rows.sparse.size_N, np.float64)
        in_blocks(lambda lo, hi: slab_kernels.sum_sparse(slabs, *rule, filled, False, width, lo, hi), n, cost)
        rows = rows._replace(sparse=filled)
    return rows


def with_room(state: State, need: Ints) -> State:
    """The same state with the room that a kernel stopped for, and as much again."""
    changed: dict[str, Any] = {}
    for name, wanted in zip(NEEDS, need.tolist(), strict=False):
        part = getattr(state, name)
        slabs = part.sparse if isinstance(part, Rows) else part
        if slabs.used[0] + wanted > len(slabs.key):
            slabs = packed(slabs, 2 * wanted)
            changed[name] = part._replace(sparse=slabs) if isinstance(part, Rows) else slabs
    rows = changed.get("heavy_hop2", state.heavy_hop2)
    n_heavy = max(len(rows.dense_NK), len(rows.sparse.start_N))
    if need[-1] > n_heavy:
        changed["heavy_hop2"] = lengthened_rows(rows, 2 * n_heavy)
    return state._replace(**changed)


def with_nodes(state: State, n_users: int, n_items: int) -> State:
    """The same state with tables for so many nodes; for half as many more than now, if they must move at all."""
    now = len(state.user_group_U)
    if n_users > now:
        n = max(n_users, now + now // 2 + 8)
        state = state._replace(
            users=lengthened(state.users, n),
            user_group_U=longer(state.user_group_U, n, UNKNOWN),
            user_weight_U=longer(state.user_weight_U, n),
            user_hop1=lengthened_rows(state.user_hop1, n),
            heavy_U=longer(state.heavy_U, n, -1),
        )
    now = len(state.item_group_I)
    if n_items > now:
        n = max(n_items, now + now // 2 + 8)
        state = state._replace(
            items=lengthened(state.items, n),
            item_group_I=longer(state.item_group_I, n, UNKNOWN),
            item_hop1=lengthened_rows(state.item_hop1, n),
            item_hop2=lengthened_rows(state.item_hop2, n),
            heavy_users=lengthened(state.heavy_users, n),
        )
    return state


def in_blocks(kernel: Callable[[int, int], None], n: int, cost: int) -> None:
    """Run ``kernel(lo, hi)`` over the rows 0 : n of ``cost`` additions in all, on as many threads as torch uses."""
    n_threads = torch.get_num_threads()
    if n_threads == 1 or cost < _SERIAL:
        kernel(0, n)
        return
    cuts = np.linspace(0, n, n_threads * _BLOCKS_PER_THREAD + 1).astype(np.int64)
    with ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(kernel, lo, hi) for lo, hi in pairwise(cuts.tolist())]:
            done.result()
