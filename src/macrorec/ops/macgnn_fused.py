"""What of a trained MacGNN can be computed before anybody asks? Its matrices, folded; the rest is one loop per request.

V stands in the readout's first layer, as z = V x is linear in the sum x of the neighbours: half the numbers. Q'K stands
in the keys of groups, E and Var of Dice in a scale and a shift. Folds are made in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from macrorec.graph.candidates import Candidates
from macrorec.ops.macgnn_layout import Net, Room, Rules, room_for

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Fused:
    """The logits of one user with many items, by MacGNN as it was when this was made; tables of nodes are shared."""

    def __init__(self, model: Any) -> None:
        """``model``: a ``MacGNN`` of float32 on the CPU."""
        self._rooms: list[Room] = []
        config = model.config
        self._rules = Rules(
            np.float32(config.tau if config.temperature else 1.0),
            config.macro_weights,
            config.attention == "macro",
            config.mask_empty,
            config.normalise,
            config.hop2,
            config.item_side,
            config.recents,
            config.own_group,
            config.bias,
            config.volumes,
        )
        of_users = model.of_users if model.meets_users else None
        item_groups, user_groups = _doubles(model.item_groups_QD), _doubles(getattr(model, "user_groups_PD", None))
        query_items, query_users = _query(model.of_items), _query(of_users)
        self._net = Net(
            users_UD=_shared(model.users_UD),
            items_ID=_shared(model.items_ID),
            user_groups_PD=_floats(user_groups),
            item_groups_QD=_floats(item_groups),
            user_bias_U=_shared(model.user_bias_U1)[:, 0] if config.bias else np.empty(0, np.float32),
            item_bias_I=_shared(model.item_bias_I1)[:, 0] if config.bias else np.empty(0, np.float32),
            user_keys_PD=_filled(_times(user_groups, query_users.T)),
            item_keys_QD=_filled(_times(item_groups, query_items.T)),
            user_query_DD=_filled(query_users.T),
            item_query_DD=_filled(query_items),
            user_groups_DP=_filled(user_groups.T),
            item_groups_DQ=_filled(item_groups.T),
            **_layers(model.readout, *_first_layer(model)),
        )

    def __call__(self, seen: Candidates) -> Floats:
        """Logits (B,). Safe to call from many threads; the interpreter's lock is free meanwhile."""
        from macrorec.ops.macgnn_kernels import score

        logits = np.empty(len(seen.item_B), np.float32)
        try:
            room = self._rooms.pop()  # a thread takes one, and nobody else has it meanwhile
        except IndexError:
            room = room_for(self._net, max(len(seen.user_hop1_Q), len(seen.user_hop2_P), len(seen.user_recent_R)))
        score(self._net, self._rules, seen, room, logits)
        self._rooms.append(room)
        return logits


def fits(model: nn.Module) -> bool:
    """Whether ``Fused`` can take a model in: all of it float32, on the CPU."""
    return all(p.device.type == "cpu" and p.dtype is torch.float32 for p in model.parameters())


def _first_layer(model: Any) -> tuple[Doubles, Doubles]:
    """The readout's first matrix, V in it: of what is the user's alone, and of all else, each part filled up.

    Its inputs are E_u, E_i, z of the hops in the order of ``MacGNN.hops``, volumes of the user and of the item.
    """
    config, dim = model.config, model.config.dim
    weight_HZ, value_items = _doubles(model.readout.layers[0].weight), _doubles(model.of_items.value_DA)
    value_users = _doubles(model.of_users.value_DA) if model.meets_users else None
    both = config.item_side
    hops = {
        "user hop 1": value_items,
        "item hop 2": value_items if config.hop2 and both else None,
        "user recent": value_items if config.recents else None,
        "user hop 2": value_users if config.hop2 else None,
        "item hop 1": value_users if both else None,
        "item recent": value_users if both and config.recents else None,
    }
    parts = {"user": weight_HZ[:, :dim], "item": weight_HZ[:, dim : 2 * dim]}
    at = 2 * dim
    for name, value_DA in hops.items():
        if value_DA is not None:
            parts[name] = weight_HZ[:, at : at + 2 * dim] @ value_DA.T
            at += 2 * dim
    if config.volumes:
        parts["user volume"], parts["item volume"] = np.split(weight_HZ[:, at:], 2, axis=1)
    if "user hop 2" in parts:
        parts["user hop 2"] = parts["user hop 2"] @ _doubles(model.user_groups_PD).T
    own = [parts.pop(name) for name in ("user", "user hop 2", "user volume") if name in parts]
    return np.hstack([_filled64(part) for part in own]), np.hstack([_filled64(part) for part in parts.values()])


def _layers(readout: Any, user_HK: Doubles, item_HK: Doubles) -> dict[str, Any]:
    """The fields of ``Net`` that say what the readout computes."""
    matrices = [item_HK, *(_filled64(_doubles(layer.weight)) for layer in [*readout.layers][1:])]
    biases = [_filled64(_doubles(layer.bias)[:, None])[:, 0] for layer in readout.layers]
    scales, shifts, alphas = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for gate in readout.gates:
        mean_H, var_H = (_doubles(statistic) for statistic in gate.statistics())
        scale_H = (var_H + gate.eps) ** -0.5
        for whole, part in ((scales, scale_H), (shifts, -mean_H * scale_H), (alphas, _doubles(gate.alpha))):
            whole.append(np.append(part, np.zeros(-len(part) % 4)))
    flat = {"biases": biases, "scales": scales, "shifts": shifts, "alphas": alphas}
    return {
        "user_KM": _filled(user_HK.T),
        "layers": _floats(np.concatenate([matrix.ravel() for matrix in matrices])),
        **{name: _floats(np.concatenate(arrays)) for name, arrays in flat.items()},
        "sizes": np.array([item_HK.shape[1], *(len(matrix) for matrix in matrices)], np.int64),
    }


def _query(mna: Any) -> Doubles:
    """``MNA.query`` as a matrix, (D, D): K Q' / sqrt(d'); empty without."""
    if mna is None or mna.query_DA is None:
        return np.empty((0, 0))
    key_DA, query_DA = _doubles(mna.key_DA), _doubles(mna.query_DA)
    query_DD: Doubles = key_DA @ query_DA.T * query_DA.shape[1] ** -0.5
    return query_DD


def _times(left: Doubles, right: Doubles) -> Doubles:
    product: Doubles = left @ right if right.size and left.size else np.empty((0, 0))
    return product


def _filled64(matrix: Doubles) -> Doubles:
    """With zeros up to multiples of 4 either way."""
    return np.pad(matrix, [(0, -size % 4) for size in matrix.shape])


def _filled(matrix: Doubles) -> Floats:
    return _floats(_filled64(matrix))


def _floats(array: Doubles) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float32)


def _shared(table: Tensor) -> Floats:
    shared: Floats = table.detach().contiguous().numpy()
    return shared


def _doubles(table: Tensor | None) -> Doubles:
    if table is None:
        return np.empty((0, 0))
    doubles: Doubles = table.detach().double().numpy()
    return doubles
