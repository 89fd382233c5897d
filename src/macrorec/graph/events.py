"""Which events may the macro graph count? Arrays of any kind, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from macrorec.errors import DataError
from macrorec.graph.slabs import Events, Ints

Numbers = npt.NDArray[Any]

MOST = 1e12
"""The largest weight of an event: sums of products of two stay within float32."""


def checked(
    user_E: Numbers,
    item_E: Numbers,
    weight_E: Numbers | None,
    time_E: Numbers | None,
    *,
    n_users: int,
    n_items: int,
    latest: int,
) -> Events:
    """The events as the kernels take them; without weights each counts 1, without times they come at ``latest``.

    Raises DataError for nodes outside the tables, weights outside 0 to ``MOST``, and what is no list of numbers.
    """
    from macrorec.graph import slab_kernels

    user_E, item_E, n = _whole("user", user_E), _whole("item", item_E), len(user_E)
    weight_E = np.ones(n, np.float32) if weight_E is None else _real("weight", weight_E)
    events = Events(user_E, item_E, weight_E, np.full(n, latest) if time_E is None else _whole("time", time_E))
    if any(len(column) != n for column in events):
        raise DataError(f"users, items, weights and times differ in number: {[len(column) for column in events]}")
    bad = slab_kernels.first_bad(events, n_users, n_items, MOST)
    if bad >= 0:
        user, item, weight, _ = (column[bad] for column in events)
        for name, number, size in (("user", user, n_users), ("item", item, n_items)):
            if not 0 <= number < size:
                raise DataError(f"event {bad}: there is no {name} {number}; the table has {size:,}, from 0")
        raise DataError(f"event {bad}: its weight is {weight:g}; it must lie between 0 and {MOST:g}")
    return events


def _whole(name: str, numbers: Numbers) -> Ints:
    """Whole numbers as int64. Raises DataError for others."""
    array = np.asarray(numbers)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise DataError(f"an event has one whole number as {name}: got {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array, dtype=np.int64)


def _real(name: str, numbers: Numbers) -> npt.NDArray[np.float32]:
    """Numbers as float32. Raises DataError for others."""
    array = np.asarray(numbers)
    if array.ndim != 1 or (array.dtype.kind not in "iufb" and len(array)):
        raise DataError(f"an event has one number as {name}: got {array.dtype} of shape {array.shape}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def repeats(columns: Sequence[Numbers]) -> Ints:
    """For each row of these columns, how many rows before it are equal."""
    order = np.lexsort(columns)
    new = np.ones(len(order), np.bool_)
    if len(order):
        new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    place, before = np.arange(len(order)), np.empty(len(order), np.int64)
    before[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return before


def inside(numbers: Numbers, n: int) -> Ints:
    """Node numbers, int64; -1 for those outside 0 : n."""
    array = np.asarray(numbers, dtype=np.int64)
    return np.where((array >= 0) & (array < n), array, -1)


def known(values_N: npt.NDArray[Any], number_B: Ints, empty: int) -> Ints:
    """Values of nodes, int64; ``empty`` where the number is -1."""
    return np.where(number_B >= 0, values_N[number_B], empty).astype(np.int64)
