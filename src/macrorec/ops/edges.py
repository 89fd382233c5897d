"""What do the edges of one behaviour weigh, and how do vectors flow along weighted edges?

No array (E, D) is written. On the CPU the loops are compiled, and results are the same to the bit for any number of
threads; elsewhere torch does the same in blocks.

Shape letters: U users, I items, N = U + I nodes (item i is node U + i), E edges, F = 2 E entries, D embedding,
L layers, K chosen nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from macrorec.ops import edge_loops
from macrorec.ops.adjacency import Adjacency
from macrorec.ops.edge_loops import Drop
from macrorec.ops.spmm import product


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
    drops = [edge_loops.drop_of(seed, dropout) for seed in seeds] if dropout else [edge_loops.NO_DROP] * n_layers
    out: Tensor = _Propagate.apply(adjacency, x_ND, value_E, own_N, drops, mean, rows_K)  # type: ignore[no-untyped-call]
    return out


def kept(seed: int, n_rows: int, width: int, share: float, device: torch.device | str = "cpu") -> Tensor:
    """Which entries dropout keeps, bool (n_rows, width): a hash of (seed, row, column), uniform over 32 bits.

    MurmurHash3's finaliser, twice, with a half of the 64-bit ``seed`` before each.
    """
    return edge_loops.kept(edge_loops.drop_of(seed, share), torch.arange(n_rows, device=device), width)


# --- gradients -------------------------------------------------------------------------------------------------------


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, adjacency: Adjacency, x_ND: Tensor, beta_D: Tensor, hidden_H: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        hidden_E = torch.zeros(0 if hidden_H is None else len(adjacency), dtype=torch.bool, device=x_ND.device)
        if hidden_H is not None:
            hidden_E[hidden_H] = True
        logit_E, weight_E, distance_E = edge_loops.weigh(adjacency, x_ND, beta_D, hidden_E)
        ctx.adjacency = adjacency
        ctx.save_for_backward(x_ND, beta_D, logit_E, weight_E)
        return weight_E, distance_E

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weight_E: Tensor, grad_distance_E: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x_ND, beta_D, logit_E, weight_E = ctx.saved_tensors
        slopes = edge_loops.weigh_back(ctx.adjacency, x_ND, beta_D, logit_E, weight_E, grad_weight_E, grad_distance_E)
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
        return edge_loops.scale(adjacency, weight_E, scale_N), self_loop * scale_N.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value_E: Tensor, grad_own_N: Tensor) -> tuple[None, Tensor, None, None]:
        weight_E, scale_N = ctx.saved_tensors
        if ctx.counted:
            return None, edge_loops.scale(ctx.adjacency, grad_value_E, scale_N), None, None
        sum_N = product(ctx.adjacency.side(grad_value_E * weight_E), scale_N[:, None]).squeeze(1)
        grad_degree_N = -0.5 * scale_N**3 * (sum_N + 2 * ctx.self_loop * scale_N * grad_own_N)
        return None, edge_loops.scale(ctx.adjacency, grad_value_E, scale_N, grad_degree_N), None, None


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
            layers.append(edge_loops.spread(side, own_N, layers[-1], rows_K if last else None, drop))
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
        grad_ND[rows_K] = edge_loops.dropped(add_KD, rows_K, ctx.drops[-1]) if ctx.drops else add_KD
        grad_F, grad_own_N = grad_KD.new_zeros(len(ctx.side[1])), torch.zeros_like(own_N)
        for number in reversed(range(len(ctx.drops))):
            drop = ctx.drops[number - 1] if number else edge_loops.NO_DROP
            add = add_KD if ctx.mean else add_KD[:0]
            x_ND = ctx.layers[number]
            grad_ND = edge_loops.spread_back(ctx.side, own_N, x_ND, grad_ND, add, place_N, drop, grad_F, grad_own_N)
        return None, grad_ND, ctx.adjacency.folded(grad_F), grad_own_N, None, None, None
