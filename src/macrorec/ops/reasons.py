"""Why does an impression score as it does? What a ranker answers: neighbours, each with its share of the logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reason:
    """What one neighbour of an impression adds to its logit."""

    side: Literal["user", "item"]
    """Whose neighbour it is."""
    via: Literal["hop 1", "hop 2", "recent"]
    """How it is reached."""
    kind: Literal["user group", "item group", "user", "item"]
    """What it is: a macro node, or a recent node by itself."""
    number: int
    """Number of the group, user or item."""
    count: float
    """Macro edge weight (5) of a group; 1 for a recent node."""
    weight: float
    """Macro weight (6) of a group; 1 where the model has none."""
    attention: float
    """Attention (7)."""
    contribution: float
    """Share of the logit."""
    type: int = 0
    """Which type of events ``count`` counts, where macro edges are typed."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why an impression scores as it does: ``base + user + item + sum of contributions == logit``."""

    logit: float
    base: float
    """The logit of an impression about which nothing is known."""
    user: float
    """Share of what the model knows of the user itself: its embedding, above all."""
    item: float
    """The same of the item."""
    neighbours: tuple[Reason, ...]

    @property
    def total(self) -> float:
        """The sum of all shares."""
        return self.base + self.user + self.item + sum(reason.contribution for reason in self.neighbours)
