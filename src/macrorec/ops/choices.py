"""Among which items was a purchase chosen? Those that the user has met, and a few drawn to stand for all others.

A sum over all items is kept exact on average: an item that is drawn t times on average counts 1 / t times for each time
that it is drawn. Draws near the user's purchases are those whose terms are large, so that few of them do.

Shape letters: B users of a batch, P their purchases, U users, I items, K similar items, W all that are similar, N items
drawn per user, S all that are drawn, E own items, Q these and the drawn ones, C choices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from macrorec.graph.bipartite import Graph, take_rows

_TINY = 1e-30  # in place of a sum of nothing, by which nothing is divided


def rows_of(start_B: Tensor) -> Tensor:
    """The row of each entry of a matrix with these row pointers."""
    return torch.arange(len(start_B) - 1, device=start_B.device).repeat_interleave(start_B.diff())


def pointers(row_E: Tensor, n_rows: int) -> Tensor:
    """Row pointers (n_rows + 1,) of entries with these rows, ascending."""
    return torch.cat([row_E.new_zeros(1), torch.bincount(row_E, minlength=n_rows).cumsum(0)])


def log_sum_exp(value_C: Tensor, row_C: Tensor, n_rows: int) -> Tensor:
    """ln sum exp of the values of each row, (n_rows,)."""
    top_B = value_C.new_full((n_rows,), -math.inf).scatter_reduce(0, row_C, value_C.detach(), "amax")
    total_B = value_C.new_zeros(n_rows).index_add(0, row_C, (value_C - top_B[row_C]).exp())
    return total_B.log() + top_B


def open_pairs(graph: Graph) -> tuple[Tensor, Tensor]:
    """What each user has met and not bought, in CSR form: (U + 1,) and (E,)."""
    n = max(graph.n_items, 1)
    met_Q = torch.unique(torch.cat([edges.user_E * n + edges.item_E for edges in graph.edges]))
    open_E = met_Q[~torch.isin(met_Q, graph.target.user_E * n + graph.target.item_E)]
    return pointers(open_E // n, graph.n_users), open_E % n


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """q_bi = (1 - c) share_i + c a_bi: how likely a draw of user b is item i.

    a_bi is proportional to the similarity of i to the purchases of b, summed over them; a user of whom no purchase is
    similar to anything has q_bi = share_i.
    """

    share_I: Tensor
    near_IK: Tensor
    """The items that are similar to each, ..."""
    alike_IK: Tensor
    """... and how similar they are."""
    c: float

    def draw(
        self, row_P: Tensor, item_P: Tensor, n_users: int, n_sampled: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """``n_sampled`` items for each user b, as numbers b I + i, and how often each is drawn on average, (S,).

        The purchases of b are ``item_P`` where ``row_P`` is b.
        """
        n, device = len(self.share_I), row_P.device
        key_W, place = torch.unique((row_P[:, None] * n + self.near_IK[item_P]).flatten(), return_inverse=True)
        alike_W = torch.zeros(len(key_W), device=device).index_add(0, place, self.alike_IK[item_P].flatten())
        total_B = torch.zeros(n_users, device=device).index_add(0, key_W // n, alike_W)
        alike_W = alike_W / total_B.clamp(min=_TINY)[key_W // n]
        has_B = total_B > 0
        row_S = torch.arange(n_users, device=device).repeat_interleave(n_sampled)
        item_S = torch.multinomial(self.share_I, len(row_S), True, generator=generator)
        at_S, of_S = torch.rand(2, len(row_S), dtype=torch.float64, device=device, generator=generator)
        if not len(key_W):
            return row_S * n + item_S, n_sampled * self.share_I[item_S]
        at_S = at_S + (has_B.cumsum(0) - 1)[row_S]  # each user with similar items has a stretch of length 1 of the sums
        found_S = torch.searchsorted(alike_W.double().cumsum(0), at_S).clamp(max=len(key_W) - 1)
        item_S = torch.where((of_S < self.c) & has_B[row_S], key_W[found_S] % n, item_S)
        found_S = torch.searchsorted(key_W, row_S * n + item_S).clamp(max=len(key_W) - 1)
        alike_S = alike_W[found_S] * (key_W[found_S] == row_S * n + item_S)
        c_S = self.c * has_B[row_S]
        return row_S * n + item_S, n_sampled * ((1 - c_S) * self.share_I[item_S] + c_S * alike_S)


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """The choices of purchase p are item_C[start_P[p] : start_P[p + 1]], the purchase itself first."""

    start_P: Tensor
    item_C: Tensor
    weight_C: Tensor
    """ln of how many items each stands for."""


def choices(
    row_P: Tensor, item_P: Tensor, own_B: tuple[Tensor, Tensor], drawn_S: Tensor, times_S: Tensor, n_items: int
) -> Choices:
    """Of each purchase: itself, the user's own items ``own_B`` (CSR) and, of those drawn for b, the ones not known."""
    n, (start_B, own_E) = n_items, own_B
    n_users, device = len(start_B) - 1, item_P.device
    own_E = rows_of(start_B) * n + own_E
    new_S = ~torch.isin(drawn_S, torch.cat([own_E, row_P * n + item_P]))
    pair_Q = torch.cat([own_E, drawn_S[new_S]])
    weight_Q = torch.cat([torch.zeros(len(own_E), device=device), -times_S[new_S].log()])
    order_Q = torch.argsort(pair_Q // n, stable=True)
    start_P, place_C = take_rows(pointers(pair_Q // n, n_users), order_Q, row_P)
    at_C = torch.arange(len(place_C), device=device) + rows_of(start_P) + 1
    start_P = start_P + torch.arange(len(start_P), device=device)
    item_C = torch.empty(int(start_P[-1]), dtype=torch.int64, device=device)
    weight_C = torch.zeros(len(item_C), device=device)
    item_C[start_P[:-1]], item_C[at_C], weight_C[at_C] = item_P, pair_Q[place_C] % n, weight_Q[place_C]
    return Choices(start_P, item_C, weight_C)
