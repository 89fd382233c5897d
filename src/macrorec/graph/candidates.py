"""What may a ranker know of one user and many items, read in one go? Plain arrays, for loops that score them.

They hold what ``Features`` hold, the user's part once. Shape letters: see ``columns``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from macrorec.graph.typed import AnyMacroGraph, TypedMacroGraph

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Candidates(NamedTuple):
    """One user with B items, as ``AnyMacroGraph.candidates`` has them; of C types, columns stand type by type."""

    user: Ints
    """Number and group of the user, shape (2,); -1 where there is none."""
    user_hop1_Q: Floats
    user_hop2_P: Floats
    user_recent_R: Ints
    user_volume_C: Floats
    item_B: Ints
    item_group_B: Ints
    item_hop1_BP: Floats
    item_hop2_BQ: Floats
    item_recent_BR: Ints
    item_volume_BC: Floats


def read(macro: AnyMacroGraph, user: int, item_B: npt.NDArray[Any]) -> Candidates:
    """The state now of a user and B items; -1 or beyond the tables: a new node. The interpreter's lock is free for
    most of it."""
    from macrorec.graph import candidate_loops

    graphs = macro.graphs if isinstance(macro, TypedMacroGraph) else (macro,)
    n, n_types, (n_users_groups, n_item_groups) = len(item_B), len(graphs), macro.n_columns
    out = Candidates(
        np.empty(2, np.int64),
        np.empty(n_item_groups, np.float32),
        np.empty(n_users_groups, np.float32),
        np.empty(macro.recents, np.int64),
        np.empty(n_types, np.float32),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty((n, n_users_groups), np.float32),
        np.empty((n, n_item_groups), np.float32),
        np.empty((n, macro.recents), np.int64),
        np.empty((n, n_types), np.float32),
    )
    items = np.ascontiguousarray(item_B, dtype=np.int64)
    sum_P = np.empty(n_users_groups // n_types)
    for kind, graph in enumerate(graphs):
        sizes = len(graph.users), len(graph.items)
        candidate_loops.read(graph.state, *sizes, int(user), items, kind, sum_P, out)
    return out
