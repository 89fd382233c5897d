"""How does a trained MacGNN lie in memory for compiled loops? Its numbers, its options, and where a thread computes.

Shape letters: U users, I items, P groups of users, Q of items, K neighbours or inputs, M outputs, D embedding, R
recents, W items side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

WIDTH = 224
"""Most items side by side: their numbers stay in the second-level cache."""


class Net(NamedTuple):
    """What a trained MacGNN is in evaluation: tables, and matrices multiplied with each other as far as they can be.

    Matrices of products are filled up with zeros to multiples of 4 either way. Whatever the model has not is empty.
    """

    users_UD: Floats
    items_ID: Floats
    user_groups_PD: Floats
    item_groups_QD: Floats
    user_bias_U: Floats
    item_bias_I: Floats
    user_keys_PD: Floats
    """Logits of (7) of groups of users are its product with E_u."""
    item_keys_QD: Floats
    user_query_DD: Floats
    """(Q'K)' / sqrt(d') of neighbours that are users: logits of recents are <E_r, query E_u>."""
    item_query_DD: Floats
    """Q'K / sqrt(d') of those that are items: logits are <query E_r, E_i>."""
    user_groups_DP: Floats
    """Transposed."""
    item_groups_DQ: Floats
    user_KM: Floats
    """First layer of the readout, transposed, of what is the user's: of E_u, of each group of its second hop (the
    group's vector and V in it), and of its volumes; each part filled up."""
    layers: Floats
    """Matrices of all layers, one after the other: the first of what is not the user's alone: E_i, the
    user's first hop, the item's second, the user's recents, the item's first hop, its recents, its volumes."""
    biases: Floats
    """Of all layers, likewise."""
    scales: Floats
    """1 / sqrt(Var + eps) of Dice of all hidden units, likewise."""
    shifts: Floats
    """- E / sqrt(Var + eps)."""
    alphas: Floats
    sizes: npt.NDArray[np.int64]
    """Inputs of the first layer, then outputs of each, filled up."""


class Rules(NamedTuple):
    """The options of the model."""

    tau: np.float32
    weighted: bool
    attends: bool
    masked: bool
    normalised: bool
    hop2: bool
    item_side: bool
    recents: bool
    own_group: bool
    biased: bool
    volumes: bool


class Room(NamedTuple):
    """Where a thread computes; what was there before does not matter. W is ``WIDTH``, K the most neighbours."""

    inputs_KW: Floats
    """Of the first layer."""
    one_MW: Floats
    other_MW: Floats
    count_KW: Floats
    logit_KW: Floats
    weight_KW: Floats
    sum_W: Floats
    bits_W: npt.NDArray[np.int32]
    power_W: Floats
    """The same bits as float32."""
    user_D1: Floats
    query_D1: Floats
    query_D: Floats
    sum_D: Floats
    facing_K1: Floats
    """Logits of (7) of groups of users that face the user."""
    constant_M: Floats
    """What the first layer makes of the user's part."""
    recent_DR: Floats
    """Embeddings of the user's recents, one column each."""
    keys_DR: Floats
    keys_RD: Floats
    zeros_K: Floats


def room_for(net: Net, n_neighbours: int) -> Room:
    """Room for users and items of at most ``n_neighbours`` groups or recents."""
    n_k, n_d, n_m = -(-n_neighbours // 4) * 4, len(net.item_groups_DQ), int(net.sizes[1:].max())

    def of(*shape: int) -> Floats:
        return np.zeros(shape, np.float32)

    bits_W = np.zeros(WIDTH, np.int32)
    return Room(
        inputs_KW=of(int(net.sizes[0]), WIDTH),
        one_MW=of(n_m, WIDTH),
        other_MW=of(n_m, WIDTH),
        count_KW=of(n_k, WIDTH),
        logit_KW=of(n_k, WIDTH),
        weight_KW=of(n_k, WIDTH),
        sum_W=of(WIDTH),
        bits_W=bits_W,
        power_W=bits_W.view(np.float32),
        user_D1=of(n_d, 1),
        query_D1=of(n_d, 1),
        query_D=of(n_d),
        sum_D=of(n_d),
        facing_K1=of(n_k, 1),
        constant_M=of(n_m),
        recent_DR=of(n_d, n_k),
        keys_DR=of(n_d, n_k),
        keys_RD=of(n_k, n_d),
        zeros_K=of(max(n_k, n_d, n_m)),
    )
