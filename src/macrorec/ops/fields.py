"""What does a ranker of fields see of an impression? A few categorical fields, and fields of many features at once.

A field is a group of features x_j, of which few are not zero (Rendle 2010, figure 1):

- one: the user, the item, the group of each: x_j = 1 for the one that it is;
- bag: the user's recent items, the item's recent users: x_j = how often j is among them, over how many they are;
- row: the macro rows A_u1, A_u2, A_i1, A_i2 (5): x_q = log(count_q + 1) / sum_p log(count_p + 1), over groups;
- volume: how many events user and item have, per type of event: x_j = 1 for j = floor(log2(n + 1)).

Bags and rows sum to 1, so that each weighs as much as a field of one feature, whatever the length of the history. Of
counts the logarithm is taken, as MacGNN does in (6): they are heavy-tailed, and one group would outshine all others.
A number outside its table, a history of nobody and a row of zeros are fields whose features are all zero.

Shape letters: B impressions, R recents, K groups, C types of events, N features of a field, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.graph.typed import AnyMacroGraph, TypedMacroGraph
from macrorec.ops.attend import inside, rows_or_zero
from macrorec.ops.gather import compiled

Seen = Literal["ids", "history", "macro", "volumes"]
"""Each sees what the one before it does, and: user, item, groups; recents; macro rows; numbers of events."""

OF = {
    "user": "user",
    "item": "item",
    "user_group": "user_group",
    "item_group": "item_group",
    "user_recent": "item",
    "item_recent": "user",
    "user_hop1": "item_column",
    "user_hop2": "user_column",
    "item_hop1": "user_column",
    "item_hop2": "item_column",
    "user_volume": "user_volume",
    "item_volume": "item_volume",
}
"""What the features of each field are; a column is that of a group and a type of event."""
_N_SEEN = {"ids": 4, "history": 6, "macro": 10, "volumes": 12}
_MAGNITUDES = 24
"""Features of a volume: 2^24 is where float32 stops counting."""


def names(seen: Seen) -> tuple[str, ...]:
    """The fields that a model sees, in order."""
    return tuple(OF)[: _N_SEEN[seen]]


def sizes(n_users: int, n_items: int, macro: AnyMacroGraph) -> dict[str, int]:
    """How many features there are of each kind."""
    n_user_columns, n_item_columns = macro.n_columns
    n_types = len(macro.types) if isinstance(macro, TypedMacroGraph) else 1
    return {
        "user": n_users,
        "item": n_items,
        "user_group": macro.users.n,
        "item_group": macro.items.n,
        "user_column": n_user_columns,
        "item_column": n_item_columns,
        "user_volume": n_types * _MAGNITUDES,
        "item_volume": n_types * _MAGNITUDES,
    }


def n_features(seen: Seen, graph: Graph) -> int:
    """Features of all fields; where the graph has no macro graph, as if there were 100 groups of either side."""
    if graph.macro is None:
        return (1 + (seen != "ids")) * graph.n_nodes + 6 * 100 + 2 * _MAGNITUDES
    size = sizes(graph.n_users, graph.n_items, graph.macro)
    return sum(size[OF[name]] for name in names(seen))


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The features of one field that are not zero, for B impressions."""

    number: Tensor | None
    """Their numbers: of one feature, (B,); of a bag, (B, R); None for a row, where feature k stands in column k."""
    value: Tensor | None
    """x_j: of a bag, (B, R), 0 where there is no feature; of a row, (B, K); None where it is 1."""


def read(features: Features, seen: Seen, size: Mapping[str, int]) -> dict[str, Field]:
    """The fields of ``features`` by name, given the number of features of each kind, as of ``sizes``."""
    fields = {}
    for name in names(seen):
        if name.endswith("_recent"):
            number_BR: Tensor = getattr(features, f"{name}_BR")
            fields[name] = Field(number_BR, shares(number_BR, size[OF[name]]))
        elif name.endswith("_volume"):
            fields[name] = volume(getattr(features, f"{name}_BC"))
        elif OF[name].endswith("_column"):
            row: Tensor = getattr(features, f"{name}_B{'Q' if OF[name] == 'item_column' else 'P'}")
            fields[name] = Field(None, row_values(row))
        else:
            fields[name] = Field(getattr(features, f"{name}_B"), None)
    return fields


def row_values(count_BK: Tensor) -> Tensor:
    """log(count_k + 1) / sum_p log(count_p + 1), shape (B, K); zero where every count is."""
    log_BK = count_BK.clamp(min=0).log1p()
    return log_BK / log_BK.sum(1, keepdim=True).clamp(min=torch.finfo(log_BK.dtype).tiny)


def volume(n_BC: Tensor) -> Field:
    """A bag of C features: of each type of event floor(log2(n + 1))."""
    magnitude_BC = n_BC.clamp(min=0).add(1).log2().long().clamp(max=_MAGNITUDES - 1)
    first_C = torch.arange(n_BC.shape[1], device=n_BC.device) * _MAGNITUDES
    return Field(magnitude_BC + first_C, torch.ones_like(n_BC))


def shares(number_BR: Tensor, size: int) -> Tensor:
    """How often number_br stands in row b, over the numbers there that are below ``size``, float32, (B, R).

    A number that repeats has its share at its first place, and 0 at the others; so do numbers outside.
    """
    if number_BR.device.type != "cpu":
        return _shares(number_BR, size)
    from macrorec.ops import field_kernels as kernels

    share_BR = torch.empty(number_BR.shape)
    kernels.shares(number_BR.contiguous().numpy(), size, share_BR.numpy())
    return share_BR


def _shares(number_BR: Tensor, size: int) -> Tensor:
    """The same by comparing all pairs."""
    inside_BR = inside(number_BR, size)
    same_BRR = (number_BR[:, :, None] == number_BR[:, None, :]) & inside_BR[:, None, :]
    first_BR = ~same_BRR.tril(-1).any(2) & inside_BR
    return same_BRR.sum(2) * first_BR / inside_BR.sum(1, keepdim=True).clamp(min=1)


class FieldTables(nn.Module):
    """A vector v_j per feature j of each field: embeddings, or with ``dim`` 1 the weights of a linear model."""

    def __init__(self, seen: Seen, size: Mapping[str, int], dim: int, *, shared: bool = False) -> None:
        """With ``shared``, fields of the same things have one table, such as an item and a user's recent items."""
        super().__init__()
        self.key = {name: OF[name] if shared else name for name in names(seen)}
        self.tables = nn.ParameterDict(
            {key: nn.Parameter(torch.zeros(size[OF[name]], dim)) for name, key in self.key.items()}
        )

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """N(0, std^2): so small that the vector of a feature which training never met hardly counts."""
        for table in self.tables.values():
            nn.init.normal_(table, std=std, generator=generator)

    def table(self, name: str) -> Tensor:
        """The vectors (N, D) of the features of a field."""
        table_ND: Tensor = self.tables[self.key[name]]
        return table_ND

    def sums(self, fields: Mapping[str, Field]) -> list[Tensor]:
        """sum_j x_j v_j over each field, (B, D) each."""
        return [pool(self.table(name), field) for name, field in fields.items()]

    def sums_and_squares(self, fields: Mapping[str, Field]) -> list[tuple[Tensor, Tensor]]:
        """sum_j x_j v_j and sum_j (x_j v_j)^2 over each field, (B, D) each."""
        return [pool_squares(self.table(name), field) for name, field in fields.items()]


def pool(table_ND: Tensor, field: Field) -> Tensor:
    """sum_j x_j v_j, shape (B, D)."""
    if field.number is None:
        assert field.value is not None
        return field.value @ table_ND
    if field.value is None:
        return rows_or_zero(table_ND, field.number)
    if compiled(table_ND):
        sum_BD: Tensor = _Bag.apply(table_ND, field.number, field.value, False)[0]  # type: ignore[no-untyped-call]
        return sum_BD
    return _bag_rows(table_ND, field.number, field.value).sum(1)


def pool_squares(table_ND: Tensor, field: Field) -> tuple[Tensor, Tensor]:
    """sum_j x_j v_j and sum_j (x_j v_j)^2, each of shape (B, D)."""
    if field.number is None:
        assert field.value is not None
        return field.value @ table_ND, field.value.square() @ table_ND.square()
    if field.value is None:
        row_BD = rows_or_zero(table_ND, field.number)
        return row_BD, row_BD.square()
    if compiled(table_ND):
        both: tuple[Tensor, Tensor] = _Bag.apply(table_ND, field.number, field.value, True)  # type: ignore[no-untyped-call]
        return both
    row_BRD = _bag_rows(table_ND, field.number, field.value)
    return row_BRD.sum(1), row_BRD.square().sum(1)


def _bag_rows(table_ND: Tensor, number_BR: Tensor, value_BR: Tensor) -> Tensor:
    return table_ND[number_BR * (value_BR > 0)] * value_BR.to(table_ND.dtype)[:, :, None]


class _Bag(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table_ND: Tensor, number_BR: Tensor, value_BR: Tensor, squares: bool
    ) -> tuple[Tensor, Tensor]:
        from macrorec.ops import field_kernels as kernels

        number_BR, value_BR = number_BR.contiguous(), value_BR.to(table_ND.dtype).contiguous()
        sum_BD = table_ND.new_empty(len(number_BR), table_ND.shape[1])
        square_BD = torch.empty_like(sum_BD if squares else sum_BD[:0])
        arrays = (table_ND.detach(), number_BR, value_BR, sum_BD, square_BD)
        kernels.bag(*(array.numpy() for array in arrays))
        ctx.save_for_backward(table_ND, number_BR, value_BR)
        ctx.squares = squares
        return sum_BD, square_BD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor, grad_square_BD: Tensor) -> tuple[Tensor, None, None, None]:
        from macrorec.ops import field_kernels as kernels

        table_ND, number_BR, value_BR = ctx.saved_tensors
        grad_ND = torch.zeros_like(table_ND)
        arrays = (table_ND.detach(), number_BR, value_BR, grad_BD.contiguous(), grad_square_BD.contiguous(), grad_ND)
        kernels.bag_back(*(array.numpy() for array in arrays))
        return grad_ND, None, None, None
