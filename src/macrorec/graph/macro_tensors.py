"""How is a macro graph stored? As named tensors: its events, groups, settings, and the rows that may lack paths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
