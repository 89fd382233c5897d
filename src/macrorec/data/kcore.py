"""Which users and items keep at least k partners among themselves?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from macrorec.data.log import sorted_distinct


def k_core(
    user: npt.NDArray[Any], item: npt.NDArray[Any], n_users: int, n_items: int, k: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Masks (n_users,) and (n_items,) of the k-core of the bipartite graph of the pairs (user, item), shape (n,).

    The k-core is the largest set in which each user has at least k distinct items, and each item k distinct users;
    it is unique, and dropping whoever has fewer until nobody does finds it (Seidman 1983).
    """
    pair = sorted_distinct(user.astype(np.int64) * n_items + item)
    user, item = pair // max(n_items, 1), pair % max(n_items, 1)
    while True:
        keep_user = np.bincount(user, minlength=n_users) >= k
        keep_item = np.bincount(item, minlength=n_items) >= k
        kept = keep_user[user] & keep_item[item]
        if kept.all():
            return keep_user, keep_item
        user, item = user[kept], item[kept]
