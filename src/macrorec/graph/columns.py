"""What may a ranker know of an impression? Columns of numbers, one row per impression."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a ranker may know of B impressions: one user and one item each. All tensors on one device.

    Shape letters: P groups of users, Q groups of items, R recents, C types of events.
    """

    user_B: Tensor
    """User numbers, int64; -1 for a user without a row of its own."""
    item_B: Tensor
    """Item numbers, int64; -1 likewise."""
    user_group_B: Tensor
    """Group of the user, int64; -1 unknown."""
    item_group_B: Tensor
    """Group of the item, int64; -1 unknown."""
    user_hop1_BQ: Tensor
    """A_u1, float32: how often the user's history met each group of items."""
    user_hop2_BP: Tensor
    """A_u2, float32: paths from the user over its items to users of each group, those back to itself included."""
    item_hop1_BP: Tensor
    """A_i1, float32: how often each group of users met the item."""
    item_hop2_BQ: Tensor
    """A_i2, float32: paths from the item over its users to items of each group, those back to itself included."""
    user_recent_BR: Tensor
    """The user's latest items, int64, latest first; -1 beyond the first."""
    item_recent_BR: Tensor
    """The item's latest users, int64, latest first; -1 beyond the first."""
    user_volume_BC: Tensor
    """How many events the user has of each type, float32; one type but in a ``TypedMacroGraph``."""
    item_volume_BC: Tensor
    """How many events the item has of each type, float32."""

    def __len__(self) -> int:
        return len(self.user_B)

    def take(self, rows: Tensor) -> Features:
        """The impressions of these numbers, int64. (Indexing by a tensor takes four times as long.)"""
        return Features(**{f.name: getattr(self, f.name).index_select(0, rows) for f in fields(self)})

    def to(self, device: torch.device | str) -> Features:
        """The same on ``device``."""
        return Features(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})
