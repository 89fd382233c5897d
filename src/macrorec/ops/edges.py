"""What do the edges of one behaviour weigh, and how do vectors flow along weighted edges?

No array (E, D) is written. On the CPU the loops are compiled, and results are the same to the bit for any number of
threads; elsewhere torch does the same in blocks.

Shape letters: U users, I items, N = U + I nodes (item i is node U + i), E edges, F = 2 E entries, D embedding,
L layers, K chosen nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import elu

from macrorec.graph.bipartite import Edges
from macrorec.ops.gather import Side, compiled, in_blocks, view
from macrorec.ops.spmm import inner_product, product

_AT_ONCE = 1 << 16
"""Edges whose vectors are held at once where no kernel applies."""

Drop = tuple[int, int, int, float]
"""Two keys, the threshold below which a hash means to drop, and the factor of what stays; a threshold of 0 is none."""
_NO_DROP: Drop = (0, 0, 0, 1.0)


class Adjacency(nn.Module):
    """The edges of one behaviour as a symmetric graph of nodes: every edge is an entry of its user and of its item.

    All tensors are non-persistent buffers: they move with ``.to(device)`` and are not saved.
    """

    start_N: Tensor
    """Pointers, int64, shape (N + 1,): the entries of node n are start_N[n] : start_N[n + 1]."""
    node_F: Tensor
    """The other node of each entry, int32: E entries of users, numbered as the edges are, then E of items."""
    order_E: Tensor
    """Edge number of each entry of items, int32."""
    place_E: Tensor
    """The other way round: which of the items' entries is the edge's, int32."""

    def __init__(self, edges: Edges, n_items: int) -> None:
        super().__init__()
        self.n_users, self.n_items = len(edges.start_U) - 1, n_items
        order_E = torch.argsort(edges.item_E, stable=True)
        place_E = torch.empty_like(order_E)
        place_E[order_E] = torch.arange(len(edges))
        start_I = len(edges) + torch.bincount(edges.item_E, minlength=n_items).cumsum(0)
        node_F = torch.cat([self.n_users + edges.item_E, edges.user_E[order_E]])
        buffers = {"node_F": node_F.int(), "order_E": order_E.int(), "place_E": place_E.int()}
        for name, tensor in {"start_N": torch.cat([edges.start_U, start_I]), **buffers}.items():
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        """Edges, E."""
        return len(self.order_E)

    @property
    def n_nodes(self) -> int:
        """N."""
        return self.n_users + self.n_items

    def user_E(self) -> Tensor:
        """User of each edge, int64."""
        user_U = torch.arange(self.n_users, device=self.start_N.device)
        return user_U.repeat_interleave(self.start_N[: self.n_users + 1].diff())

    def both(self, value_E: Tensor) -> Tensor:
        """Values of edges as values of entries, (F,)."""
        return torch.cat([value_E, value_E.index_select(0, self.order_E)])

    def folded(self, value_F: Tensor) -> Tensor:
        """Per edge the sum over its two entries, (E,)."""
        of_users_E, of_items_E = value_F.tensor_split([len(self)])
        return of_users_E + of_items_E.index_select(0, self.place_E)

    def side(self, value_E: Tensor) -> Side:
        """The symmetric matrix (N, N) of these values in CSR form."""
        return self.start_N, self.node_F, self.both(value_E)


def weigh(adjacency: Adjacency, x_ND: Tensor, beta_D: Tensor, hidden_H: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """w_ui = softmax over u's edges of ELU(|x_u - x_i| . beta), and |x_u - x_i|^2, both of shape (E,).

    Edges numbered ``hidden_H`` (H,) weigh nothing, as if they were not there. Differentiable in ``x_ND``, ``beta_D``.
    """
    both: tuple[Tensor, Tensor] = _Weigh.apply(adjacency, x_ND, beta_D, hidden_H)  # type: ignore[no-untyped-call]
    return both


def normalise(
    adjacency: Adjacency, weight_E: Tensor, self_loop: float, *, counted: bool = False
) -> tuple[Tensor, Tensor]:
    """D^-1/2 A D^-1/2 for A = [[s I, W], [W', s I]]: its values on edges (E,), and its diagonal (N,).

    D holds the row sums of A; or, if ``counted``, the numbers of edges plus s. A node of degree zero gets zeros.
    Differentiable in ``weight_E``, through the degrees, too.
    """
    both: tuple[Tensor, Tensor] = _Normalise.apply(adjacency, weight_E, self_loop, counted)  # type: ignore[no-untyped-call]
    return both


def propagate(
    adjacency: Adjacency,
    x_ND: Tensor,
    value_E: Tensor,
    own_N: Tensor,
    n_layers: int,
    *,
    mean: bool = False,
    rows_K: Tensor | None = None,
    dropout: float = 0.0,
    seeds: Sequence[int] = (),
) -> Tensor:
    """x^(L), or with ``mean`` 1/(L + 1) sum_l x^(l), of x^(l) = P x^(l-1); all rows (N, D), or ``rows_K`` (K, D).

    P has ``value_E`` on edges in both directions, ``own_N`` on the diagonal, as from ``normalise``. With ``dropout``,
    entries of x^(1) to x^(L) are zero with that probability, and scaled up otherwise; ``seeds`` decides which, one per
    layer. Differentiable in ``x_ND``, ``value_E`` and ``own_N``. ``rows_K`` are distinct.
    """
    drops = [_drop(seed, dropout) for seed in seeds] if dropout else [_NO_DROP] * n_layers
    out: Tensor = _Propagate.apply(adjacency, x_ND, value_E, own_N, drops, mean, rows_K)  # type: ignore[no-untyped-call]
    return out


def kept(seed: int, n_rows: int, width: int, share: float, device: torch.device | str = "cpu") -> Tensor:
    """Which entries dropout keeps, bool (n_rows, width): a hash of (seed, row, column), uniform over 32 bits.

    MurmurHash3's finaliser, twice, with a half of the 64-bit ``seed`` before each.
    """
    return _kept(_drop(seed, share), torch.arange(n_rows, device=device), width)


# --- gradients -------------------------------------------------------------------------------------------------------


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, adjacency: Adjacency, x_ND: Tensor, beta_D: Tensor, hidden_H: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        hidden_E = torch.zeros(0 if hidden_H is None else len(adjacency), dtype=torch.bool, device=x_ND.device)
        if hidden_H is not None:
            hidden_E[hidden_H] = True
        logit_E, weight_E, distance_E = _weigh(adjacency, x_ND, beta_D, hidden_E)
        ctx.adjacency = adjacency
        ctx.save_for_backward(x_ND, beta_D, logit_E, weight_E)
        return weight_E, distance_E

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weight_E: Tensor, grad_distance_E: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x_ND, beta_D, logit_E, weight_E = ctx.saved_tensors
        slopes = _weigh_back(ctx.adjacency, x_ND, beta_D, logit_E, weight_E, grad_weight_E, grad_distance_E)
        return None, *slopes, None


class _Normalise(torch.autograd.Function):
    """With s = d^-1/2, d_n gets -1/2 s_n^3 (sum over entries of grad_value w s_other + 2 lambda s_n grad_own)."""

    @staticmethod
    def forward(
        ctx: Any, adjacency: Adjacency, weight_E: Tensor, self_loop: float, counted: bool
    ) -> tuple[Tensor, Tensor]:
        if counted:
            degree_N = adjacency.start_N.diff().to(weight_E.dtype)
        else:
            degree_N = product(adjacency.side(weight_E), weight_E.new_ones(adjacency.n_nodes, 1)).squeeze(1)
        degree_N = degree_N + self_loop
        scale_N = torch.where(degree_N > 0, degree_N.clamp(min=torch.finfo(degree_N.dtype).tiny).rsqrt(), 0)
        ctx.adjacency, ctx.self_loop, ctx.counted = adjacency, self_loop, counted
        ctx.save_for_backward(weight_E, scale_N)
        return _scale(adjacency, weight_E, scale_N), self_loop * scale_N.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value_E: Tensor, grad_own_N: Tensor) -> tuple[None, Tensor, None, None]:
        weight_E, scale_N = ctx.saved_tensors
        if ctx.counted:
            return None, _scale(ctx.adjacency, grad_value_E, scale_N), None, None
        sum_N = product(ctx.adjacency.side(grad_value_E * weight_E), scale_N[:, None]).squeeze(1)
        grad_degree_N = -0.5 * scale_N**3 * (sum_N + 2 * ctx.self_loop * scale_N * grad_own_N)
        return None, _scale(ctx.adjacency, grad_value_E, scale_N, grad_degree_N), None, None


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        adjacency: Adjacency,
        x_ND: Tensor,
        value_E: Tensor,
        own_N: Tensor,
        drops: list[Drop],
        mean: bool,
        rows_K: Tensor | None,
    ) -> Tensor:
        side, layers, every = adjacency.side(value_E), [x_ND], rows_K is None
        for number, drop in enumerate(drops, 1):
            last = number == len(drops)
            layers.append(_spread(side, own_N, layers[-1], rows_K if last else None, drop))
        rows_K = torch.arange(len(x_ND), device=x_ND.device) if rows_K is None else rows_K
        ctx.adjacency, ctx.side, ctx.layers, ctx.drops, ctx.mean, ctx.rows_K = (
            adjacency, side, layers[:-1], drops, mean, rows_K
        )  # fmt: skip
        ctx.save_for_backward(own_N)
        if not drops:
            return x_ND.clone() if every else x_ND[rows_K]
        if not mean:
            return layers[-1]
        whole = layers[:-1] if every else [layer[rows_K] for layer in layers[:-1]]
        return torch.stack([*whole, layers[-1]]).mean(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_KD: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None, None, None]:
        (own_N,), rows_K = ctx.saved_tensors, ctx.rows_K
        place_N = torch.full((len(own_N),), -1, dtype=torch.int32, device=own_N.device)
        place_N[rows_K] = torch.arange(len(rows_K), dtype=torch.int32, device=own_N.device)
        add_KD = grad_KD / (len(ctx.drops) + 1) if ctx.mean else grad_KD
        grad_ND = grad_KD.new_zeros(len(own_N), grad_KD.shape[1])
        grad_ND[rows_K] = _dropped(add_KD, rows_K, ctx.drops[-1]) if ctx.drops else add_KD
        grad_F, grad_own_N = grad_KD.new_zeros(len(ctx.side[1])), torch.zeros_like(own_N)
        for number in reversed(range(len(ctx.drops))):
            drop = ctx.drops[number - 1] if number else _NO_DROP
            add = add_KD if ctx.mean else add_KD[:0]
            x_ND = ctx.layers[number]
            grad_ND = _spread_back(ctx.side, own_N, x_ND, grad_ND, add, place_N, drop, grad_F, grad_own_N)
        return None, grad_ND, ctx.adjacency.folded(grad_F), grad_own_N, None, None, None


# --- the loops, compiled or by torch ---------------------------------------------------------------------------------


def _weigh(adjacency: Adjacency, x_ND: Tensor, beta_D: Tensor, hidden_E: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if compiled(x_ND):
        from macrorec.ops import edge_kernels

        inputs = [*map(view, (adjacency.start_N, adjacency.node_F, x_ND, beta_D, hidden_E))]
        outputs = [np.empty(len(adjacency), inputs[2].dtype) for _ in range(3)]
        _over_users(adjacency, edge_kernels.weigh, [*inputs, *outputs], x_ND.shape[1])
        logit_E, weight_E, distance_E = map(torch.from_numpy, outputs)
        return logit_E, weight_E, distance_E
    user_E, item_E = adjacency.user_E(), adjacency.node_F[: len(adjacency)]
    logit_E, distance_E = x_ND.new_empty(len(adjacency)), x_ND.new_empty(len(adjacency))
    for here in _blocks(len(adjacency)):
        apart_ED = x_ND[user_E[here]] - x_ND[item_E[here]]
        logit_E[here], distance_E[here] = elu(apart_ED.abs() @ beta_D), apart_ED.square().sum(1)
    seen_E = logit_E.masked_fill(hidden_E, -torch.inf) if len(hidden_E) else logit_E
    highest_U = logit_E.new_full((adjacency.n_users,), -1.0).scatter_reduce_(0, user_E, seen_E, "amax")
    weight_E = (seen_E - highest_U[user_E]).exp()
    total_U = _sum_by_user(adjacency, weight_E).clamp(min=torch.finfo(x_ND.dtype).tiny)
    return logit_E, weight_E / total_U[user_E], distance_E


def _weigh_back(
    adjacency: Adjacency,
    x_ND: Tensor,
    beta_D: Tensor,
    logit_E: Tensor,
    weight_E: Tensor,
    grad_weight_E: Tensor,
    grad_distance_E: Tensor,
) -> tuple[Tensor, Tensor]:
    if compiled(x_ND):
        from macrorec.ops import edge_kernels

        start, node, x, beta, *others = map(
            view, (adjacency.start_N, adjacency.node_F, x_ND, beta_D, logit_E, weight_E, grad_weight_E, grad_distance_E)
        )
        width, n_users = x.shape[1], adjacency.n_users
        slope, grad, grad_beta = (np.empty(n, x.dtype) for n in (len(adjacency), x.shape, (n_users, width)))
        args = [start, node, x, beta, *others, slope, grad, grad_beta]
        _over_users(adjacency, edge_kernels.weigh_back_users, args, width)
        by_item = [view(torch.from_numpy(a).index_select(0, adjacency.order_E)) for a in (slope, others[-1])]
        rest = [start, node, *by_item, x, beta, grad, np.int64(n_users)]
        _run(edge_kernels.weigh_back_items, rest, start[n_users:] - start[n_users], width)
        return torch.from_numpy(grad), torch.from_numpy(grad_beta).sum(0)
    user_E, item_E = adjacency.user_E(), adjacency.node_F[: len(adjacency)]
    mean_U = _sum_by_user(adjacency, weight_E * grad_weight_E)
    slope_E = weight_E * (grad_weight_E - mean_U[user_E]) * torch.where(logit_E > 0, 1, logit_E + 1)
    grad_ND, grad_D = torch.zeros_like(x_ND), torch.zeros_like(beta_D)
    for here in _blocks(len(adjacency)):
        apart_ED = x_ND[user_E[here]] - x_ND[item_E[here]]
        flow_ED = slope_E[here, None] * beta_D * apart_ED.sign() + 2 * grad_distance_E[here, None] * apart_ED
        grad_ND.index_add_(0, user_E[here], flow_ED).index_add_(0, item_E[here], flow_ED, alpha=-1)
        grad_D += slope_E[here] @ apart_ED.abs()
    return grad_ND, grad_D


def _scale(adjacency: Adjacency, value_E: Tensor, factor_N: Tensor, add_N: Tensor | None = None) -> Tensor:
    """value_e factor_u factor_i, plus add_u + add_i."""
    if compiled(value_E):
        from macrorec.ops import edge_kernels

        start, node, value, factor = map(view, (adjacency.start_N, adjacency.node_F, value_E, factor_N))
        add, out = factor[:0] if add_N is None else view(add_N), np.empty_like(value)
        _over_users(adjacency, edge_kernels.scale, [start, node, value, factor, add, out], 1)
        return torch.from_numpy(out)
    user_E, item_E = adjacency.user_E(), adjacency.node_F[: len(adjacency)]
    out_E = value_E * (factor_N[user_E] * factor_N[item_E])
    return out_E if add_N is None else out_E + add_N[user_E] + add_N[item_E]


def _spread(side: Side, own_N: Tensor, x_ND: Tensor, rows_K: Tensor | None, drop: Drop) -> Tensor:
    """own x + A x and dropout; all rows or ``rows_K``."""
    if compiled(x_ND):
        from macrorec.ops import edge_kernels

        start, node, value, own, x = map(view, (*side, own_N, x_ND))
        rows, cost = np.empty(0, np.int64), start
        if rows_K is not None:
            rows = view(rows_K)
            cost = np.concatenate([[0], np.cumsum(start[rows + 1] - start[rows])])
        out = np.empty((len(cost) - 1, x.shape[1]), x.dtype)
        _run(edge_kernels.spread, [start, node, value, own, x, rows, drop, out], cost, x.shape[1])
        return torch.from_numpy(out)
    y_ND = own_N[:, None] * x_ND + product(side, x_ND)
    if rows_K is None:
        return _dropped(y_ND, torch.arange(len(y_ND), device=y_ND.device), drop)
    return _dropped(y_ND[rows_K], rows_K, drop)


def _spread_back(
    side: Side,
    own_N: Tensor,
    x_ND: Tensor,
    grad_ND: Tensor,
    add_KD: Tensor,
    place_N: Tensor,
    drop: Drop,
    grad_value_F: Tensor,
    grad_own_N: Tensor,
) -> Tensor:
    """The gradient of x before its dropout; adds to those of values and diagonal. ``add_KD`` joins at its places."""
    if compiled(x_ND):
        from macrorec.ops import edge_kernels

        start, *others = map(view, (*side, own_N, x_ND, grad_ND, add_KD, place_N))
        out = np.empty(x_ND.shape, others[3].dtype)
        args = [start, *others, drop, out, view(grad_value_F), view(grad_own_N)]
        _run(edge_kernels.spread_back, args, start, 2 * x_ND.shape[1])
        return torch.from_numpy(out)
    grad_own_N += (x_ND * grad_ND).sum(1)
    grad_value_F += inner_product(side, x_ND, grad_ND)
    out_ND = own_N[:, None] * grad_ND + product(side, grad_ND)
    if len(add_KD):
        out_ND += torch.where(place_N[:, None] >= 0, add_KD[place_N.clamp(min=0)], 0)
    return _dropped(out_ND, torch.arange(len(out_ND), device=out_ND.device), drop)


def _dropped(x_KD: Tensor, rows_K: Tensor, drop: Drop) -> Tensor:
    """The rows ``rows_K`` of a table after dropout."""
    if not drop[2]:
        return x_KD
    if compiled(x_KD):
        from macrorec.ops import edge_kernels

        out = view(x_KD).copy()
        edge_kernels.drop_rows(out, view(rows_K), drop)
        return torch.from_numpy(out)
    return x_KD * _kept(drop, rows_K, x_KD.shape[1]) * drop[3]


def _kept(drop: Drop, rows_K: Tensor, width: int) -> Tensor:
    bits = 0xFFFFFFFF
    h = (rows_K[:, None] * width + torch.arange(width, device=rows_K.device)) & bits
    for key in drop[:2]:
        h ^= key
        h = (h ^ h >> 16) * 0x85EBCA6B & bits
        h = (h ^ h >> 13) * 0xC2B2AE35 & bits
        h ^= h >> 16
    return h >= drop[2]


def _drop(seed: int, share: float) -> Drop:
    return seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, int(share * (1 << 32)), 1 / (1 - share)


def _sum_by_user(adjacency: Adjacency, value_E: Tensor) -> Tensor:
    start_U, item_E = adjacency.start_N[: adjacency.n_users + 1], adjacency.node_F[: len(adjacency)]
    return product((start_U, item_E, value_E), value_E.new_ones(adjacency.n_nodes, 1)).squeeze(1)


def _over_users(adjacency: Adjacency, kernel: Any, args: Sequence[Any], width: int) -> None:
    _run(kernel, args, view(adjacency.start_N[: adjacency.n_users + 1]), width)


def _run(kernel: Any, args: Sequence[Any], cost: npt.NDArray[Any], width: int) -> None:
    in_blocks(lambda lo, hi: kernel(*args, lo, hi), cost, width)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, first + _AT_ONCE) for first in range(0, n, _AT_ONCE))
