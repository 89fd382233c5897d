"""Why does a ranker score a pair as it does, in words that a person can read?

Macro neighbours are named by their category, or by three items that set them apart; every row says what it adds to the
logit, and all rows of a table add up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.api import Reason, Reasons
from macrorec.data.vocab import Vocab
from macrorec.graph.groups import distinctive
from macrorec.graph.typed import AnyMacroGraph, TypedMacroGraph, types_of

TOP = 3
"""Items that stand for a group without a name."""
OTHERS = "(others)"
"""The row of a hop that holds all neighbours that are not told one by one."""
ORDER = [(side, via) for side in ("user", "item") for via in ("hop 1", "hop 2", "recent")]
"""Of the hops."""
COLUMNS = {
    "side": pl.String,
    "via": pl.String,
    "what": pl.String,
    "count": pl.Float64,
    "weight": pl.Float64,
    "attention": pl.Float64,
    "contribution": pl.Float64,
}


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """How neighbours are called."""

    user_groups: Sequence[str]
    item_groups: Sequence[str]
    users: Vocab
    items: Vocab
    titles: pl.Series | None
    """A name per item; null where it has none."""
    types: Sequence[str] = ()
    """Of events, where there are several."""

    def of(self, reason: Reason) -> str:
        """The name of a neighbour."""
        if reason.kind == "user":
            return str(self.users.ids[reason.number])
        if reason.kind == "item":
            return called(self.items, self.titles, np.array([reason.number]))
        name = (self.user_groups if reason.kind == "user group" else self.item_groups)[reason.number]
        return f"{name} ({self.types[reason.type]})" if self.types else name


def names(macro: AnyMacroGraph, users: Vocab, items: Vocab, titles: pl.Series | None = None) -> Names:
    """Names of all groups: their own, or of item groups the most met items, of user groups the most distinctive."""
    everything = np.arange(len(macro.items))
    order = np.lexsort((everything, -macro.item_events(everything)))
    members = (order[macro.items.of_N[order] == group][:TOP] for group in range(macro.items.n))
    item_groups = macro.items.names or [called(items, titles, own) for own in members]
    met_IP = (macro.graphs[0] if isinstance(macro, TypedMacroGraph) else macro).item_hop1(everything)
    item, group = np.nonzero(met_IP)
    typical = distinctive(group, item, met_IP[item, group], macro.users.n, TOP)
    user_groups = macro.users.names or [called(items, titles, np.array(own, dtype=np.int64)) for own in typical]
    return Names(user_groups, item_groups, users, items, titles, types_of(macro))


def called(items: Vocab, titles: pl.Series | None, numbers: npt.NDArray[np.int64]) -> str:
    """The titles, or where there is none the ids, of the items ``numbers``."""
    ids = items.ids_of(numbers).cast(pl.String)
    told = ids if titles is None else titles.gather(numbers).fill_null(ids)
    return "; ".join(told) or "(empty)"


def table(reasons: Reasons, names: Names, k: int | None = None) -> pl.DataFrame:
    """``COLUMNS``: the base, the own share of user and item, then per hop the k strongest neighbours and the others.

    The contributions add up to the logit.
    """
    rows: list[tuple[str, str, str, float | None, float | None, float | None, float]] = [
        ("", "base", "nothing known", None, None, None, reasons.base),
        ("user", "itself", "", None, None, None, reasons.user),
        ("item", "itself", "", None, None, None, reasons.item),
    ]
    for hop in sorted({(reason.side, reason.via) for reason in reasons.neighbours}, key=ORDER.index):
        own = [reason for reason in reasons.neighbours if (reason.side, reason.via) == hop]
        own.sort(key=lambda reason: -abs(reason.contribution))
        for reason in own[:k]:
            numbers = (reason.count, reason.weight, reason.attention, reason.contribution)
            rows.append((*hop, names.of(reason), *numbers))
        if k is not None and len(own) > k:
            rest = own[k:]
            sums = (sum(r.count for r in rest), sum(r.weight for r in rest), sum(r.attention for r in rest))
            rows.append((*hop, OTHERS, *sums, sum(r.contribution for r in rest)))
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")
