"""Which item is the r-th that a user does not have? By bisection in the user's sorted row, as machine code.

Imported only when the first negatives are drawn: compiling takes a moment, where nothing is cached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int64]


@njit(nogil=True, cache=True)
def missing(start_U: Ints, item_E: Ints, users_B: Ints, rank_B: Ints, out_B: Any) -> None:
    """out[b] = the item of rank ``rank_B[b]``, from 0, among those not in the row of ``users_B[b]``.

    The r-th item missing from a sorted row i_0 < i_1 < ... is r + #{j : i_j - j <= r}; ``i_j - j`` never falls.
    """
    for b in range(len(users_B)):
        first, low, high = start_U[users_B[b]], 0, start_U[users_B[b] + 1] - start_U[users_B[b]]
        while low < high:
            middle = (low + high) // 2
            if item_E[first + middle] - middle <= rank_B[b]:
                low = middle + 1
            else:
                high = middle
        out_B[b] = rank_B[b] + low
