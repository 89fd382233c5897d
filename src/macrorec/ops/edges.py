"""What do the edges of one behaviour weigh, and how do vectors flow along weighted edges?

The edges are the entries of a ``SparseMatrix`` (U, I), numbered by user, then item, as in ``Edges``. No array (E, D) is
written. On the CPU the loops are compiled, and results are the same to the bit for any number of threads.

Shape letters: U users, I items, N = U + I nodes (item i is node U + i), E edges, D embedding, L layers, K chosen nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import elu

from macrorec.graph.bipartite import Edges
from macrorec.ops.spmm import SparseMatrix, spmm

_AT_ONCE = 1 << 16
"""Edges whose vectors are held at once where no kernel applies."""


def pattern(edges: Edges, n_items: int) -> SparseMatrix:
    """The edges as a matrix (U, I) of ones."""
    return SparseMatrix(edges.user_E, edges.item_E, torch.ones(len(edges)), (len(edges.start_U) - 1, n_items))


def weigh(matrix: SparseMatrix, x_ND: Tensor, beta_D: Tensor, hidden_H: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """w_ui = softmax over u's edges of ELU(|x_u - x_i| . beta), and |x_u - x_i|^2, both of shape (E,).

    Edges numbered ``hidden_H`` (H,) weigh nothing, as if they were not there. Differentiable in ``x_ND``, ``beta_D``.
    """
    both: tuple[Tensor, Tensor] = _Weigh.apply(matrix, x_ND, beta_D, hidden_H)  # type: ignore[no-untyped-call]
    return both


def normalise(
    matrix: SparseMatrix, weight_E: Tensor, self_loop: float, *, counted: bool = False
) -> tuple[Tensor, Tensor]:
    """D^-1/2 A D^-1/2 for A = [[s I, W], [W', s I]]: its values on edges (E,), and its diagonal (N,).

    D holds the row sums of A; or, if ``counted``, the numbers of edges plus s. A node with degree zero gets zeros.
    Differentiable in ``weight_E``, through the degrees, too.
    """
    if counted:
        degree_N = torch.cat([matrix.start_M.diff(), _start_of_columns(matrix).diff()]).to(weight_E.dtype) + self_loop
    else:
        one_I1, one_U1 = weight_E.new_ones(matrix.shape[1], 1), weight_E.new_ones(matrix.shape[0], 1)
        sums = spmm(matrix, one_I1, weight_E), spmm(matrix, one_U1, weight_E, transpose=True)
        degree_N = torch.cat(sums).squeeze(1) + self_loop
    there = degree_N > 0
    scale_N = torch.where(there, degree_N.where(there, 1).rsqrt(), 0)
    user_E, item_E = _ends(matrix)
    return weight_E * scale_N[user_E] * scale_N[item_E], self_loop * scale_N.square()


def propagate(
    matrix: SparseMatrix,
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
    layer. Differentiable in ``x_ND``, ``value_E`` and ``own_N``.
    """
    n_users, layers = matrix.shape[0], [x_ND]
    for layer in range(n_layers):
        x_UD, x_ID = layers[-1].tensor_split([n_users])
        flow = torch.cat([spmm(matrix, x_ID, value_E), spmm(matrix, x_UD, value_E, transpose=True)])
        y_ND = own_N[:, None] * layers[-1] + flow
        if dropout:
            y_ND = y_ND * kept(seeds[layer], len(y_ND), y_ND.shape[1], dropout, y_ND.device) / (1 - dropout)
        layers.append(y_ND)
    out_ND = torch.stack(layers).mean(0) if mean else layers[-1]
    return out_ND if rows_K is None else out_ND[rows_K]


def kept(seed: int, n_rows: int, width: int, share: float, device: torch.device | str = "cpu") -> Tensor:
    """Which entries dropout keeps, bool (n_rows, width): a hash of (seed, row, column), uniform over 32 bits.

    The finaliser of MurmurHash3, with the upper half of the 64-bit ``seed`` between its rounds.
    """
    bits, low, high = 0xFFFFFFFF, seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    h = torch.arange(n_rows * width, device=device) & bits ^ low
    h = (h ^ h >> 16) * 0x85EBCA6B & bits ^ high
    h = (h ^ h >> 13) * 0xC2B2AE35 & bits
    return ((h ^ h >> 16) >= int(share * (1 << 32))).view(n_rows, width)


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, matrix: SparseMatrix, x_ND: Tensor, beta_D: Tensor, hidden_H: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        user_E, item_E = _ends(matrix)
        logit_E, distance_E = x_ND.new_empty(len(matrix)), x_ND.new_empty(len(matrix))
        for here in _blocks(len(matrix)):
            apart_ED = x_ND[user_E[here]] - x_ND[item_E[here]]
            logit_E[here] = elu(apart_ED.abs() @ beta_D)
            distance_E[here] = apart_ED.square().sum(1)
        seen_E = logit_E if hidden_H is None else logit_E.index_fill(0, hidden_H, -torch.inf)
        highest_U = logit_E.new_full((matrix.shape[0],), -1.0).scatter_reduce_(0, user_E, seen_E, "amax")
        weight_E = (seen_E - highest_U[user_E]).exp()
        total_U = _sum_rows(matrix, weight_E)
        weight_E /= total_U.clamp(min=torch.finfo(x_ND.dtype).tiny)[user_E]
        ctx.matrix = matrix
        ctx.save_for_backward(x_ND, beta_D, logit_E, weight_E)
        return weight_E, distance_E

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weight_E: Tensor, grad_distance_E: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x_ND, beta_D, logit_E, weight_E = ctx.saved_tensors
        user_E, item_E = _ends(ctx.matrix)
        mean_U = _sum_rows(ctx.matrix, weight_E * grad_weight_E)
        slope_E = weight_E * (grad_weight_E - mean_U[user_E]) * torch.where(logit_E > 0, 1, logit_E + 1)
        grad_ND, grad_D = torch.zeros_like(x_ND), torch.zeros_like(beta_D)
        for here in _blocks(len(ctx.matrix)):
            apart_ED = x_ND[user_E[here]] - x_ND[item_E[here]]
            flow_ED = slope_E[here, None] * beta_D * apart_ED.sign() + 2 * grad_distance_E[here, None] * apart_ED
            grad_ND.index_add_(0, user_E[here], flow_ED).index_add_(0, item_E[here], flow_ED, alpha=-1)
            grad_D += slope_E[here] @ apart_ED.abs()
        return None, grad_ND, grad_D, None


def _ends(matrix: SparseMatrix) -> tuple[Tensor, Tensor]:
    """The two nodes of each edge."""
    user_U = torch.arange(matrix.shape[0], device=matrix.start_M.device)
    return user_U.repeat_interleave(matrix.start_M.diff()), matrix.shape[0] + matrix.col_E.long()


def _start_of_columns(matrix: SparseMatrix) -> Tensor:
    return matrix.side(transpose=True)[0]


def _sum_rows(matrix: SparseMatrix, weight_E: Tensor) -> Tensor:
    return spmm(matrix, weight_E.new_ones(matrix.shape[1], 1), weight_E).squeeze(1)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, first + _AT_ONCE) for first in range(0, n, _AT_ONCE))
