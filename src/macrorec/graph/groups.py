"""Which macro node does a user or an item belong to?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
UNKNOWN = -1
"""The group of a node without one: no macro edge counts it, and nothing attends to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The macro nodes of one side: x_v of (3) for each of N nodes."""

    of_N: npt.NDArray[np.int32]
    """Group of each node, 0 to n - 1, or ``UNKNOWN``; shape (N,)."""
    n: int
    """Number of groups."""
    names: tuple[str, ...] = ()
    """A name per group, where the groups have one, such as those of categories."""
    centres_KF: Floats | None = None
    """mu_k of (3), where groups come from behaviour vectors of F numbers; a later node joins the nearest."""

    def __len__(self) -> int:
        return len(self.of_N)
