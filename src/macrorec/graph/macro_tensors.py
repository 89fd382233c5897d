"""How is a macro graph stored? As named tensors: its events, groups, settings, and the rows that may lack paths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.errors import DataError
from macrorec.graph.groups import Groups
from macrorec.graph.slabs import Rows, Slabs, State, contents, empty_rows, from_contents, is_dense, lengthened, longer

SIDES = ("users", "items")
_EVENTS = ("size", "key", "weight", "time")
_ROWS = ("size", "key", "value")


def write(state: State, groups: tuple[Groups, Groups], settings: Sequence[int]) -> dict[str, Tensor]:
    """Tensors of names such as ``users.key``; names of groups are JSON in UTF-8."""
    arrays: dict[str, npt.NDArray[Any]] = {"settings": np.array(settings, np.int64), "missed": state.missed}
    for side, slabs, of in zip(SIDES, (state.users, state.items), groups, strict=True):
        columns = zip(_EVENTS, contents(slabs, len(of)), strict=True)
        arrays |= {f"{side}.{name}": column for name, column in columns}
        arrays[f"{side}.group"] = of.of_N
        arrays[f"{side}.names"] = np.frombuffer(json.dumps([of.n, of.names]).encode(), np.uint8)
        if of.centres_KF is not None:
            arrays[f"{side}.centres"] = of.centres_KF
    n_items = len(groups[1])
    if is_dense(state.item_hop2):
        arrays["item_hop2.rows"] = state.item_hop2.dense_NK[:n_items]
    else:
        columns = zip(_ROWS, contents(state.item_hop2.sparse, n_items), strict=False)
        arrays |= {f"item_hop2.{name}": column for name, column in columns}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def check(tensors: Mapping[str, Tensor]) -> None:
    """Raise DataError unless the tensors fit each other and every number points inside: native code trusts them."""
    sides = {side: read_groups(tensors, side) for side in SIDES}
    for side, other in (SIDES, SIDES[::-1]):
        size_N, key, weight, time = (tensors[f"{side}.{name}"].numpy() for name in _EVENTS)
        lengths = {len(key), len(weight), len(time), len(tensors[f"{other}.key"])}
        own = sides[side]
        _require(f"{side}.size", len(size_N) == len(own) and {_total(size_N)} == lengths)
        _require(f"{side}.key", _inside(key, 0, len(sides[other])))
        _require(f"{side}.group", _inside(own.of_N, -1, own.n))
    n_items, n_groups = len(sides["items"]), sides["items"].n
    if "item_hop2.rows" in tensors:
        _require("item_hop2.rows", tensors["item_hop2.rows"].shape == (n_items, n_groups))
    else:
        size_N, key, value = (tensors[f"item_hop2.{name}"].numpy() for name in _ROWS)
        _require("item_hop2.size", len(size_N) == n_items and _total(size_N) == len(key) == len(value))
        _require("item_hop2.key", _inside(key, 0, n_groups))


def _total(size_N: npt.NDArray[Any]) -> int:
    return int(size_N.sum()) if (size_N >= 0).all() else -1


def _inside(numbers: npt.NDArray[Any], low: int, high: int) -> bool:
    return bool(((numbers >= low) & (numbers < high)).all())


def _require(name: str, sound: bool) -> None:
    if not sound:
        raise DataError(f"the macro graph is damaged: its tensor {name!r} does not fit the others")


def read_groups(tensors: Mapping[str, Tensor], side: str) -> Groups:
    """The groups of ``side``."""
    n, names = json.loads(tensors[f"{side}.names"].numpy().tobytes())
    centres = tensors.get(f"{side}.centres")
    return Groups(tensors[f"{side}.group"].numpy(), n, tuple(names), None if centres is None else centres.numpy())


def read_events(tensors: Mapping[str, Tensor], side: str) -> Slabs:
    """The events of each node of ``side``."""
    size_N, key, weight, time = (tensors[f"{side}.{name}"].numpy() for name in _EVENTS)
    return lengthened(from_contents(size_N, key, weight, time), max(len(size_N), 1))


def read_item_hop2(tensors: Mapping[str, Tensor], now: Rows) -> Rows:
    """A_i2 as it was kept, in the place of ``now``."""
    n = max(len(now.dense_NK), len(now.sparse.start_N))
    if "item_hop2.rows" in tensors:
        return empty_rows(0, now.width, dense=True)._replace(dense_NK=longer(tensors["item_hop2.rows"].numpy(), n))
    size_N, key, value = (tensors[f"item_hop2.{name}"].numpy() for name in _ROWS)
    sparse = from_contents(size_N, key, value, None)
    return empty_rows(0, now.width, dense=False)._replace(sparse=lengthened(sparse, n))
