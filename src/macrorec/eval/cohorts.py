"""For whom, and for which items, does a model work? By length of history, and by known items.

Shape letters: B impressions, E held-out pairs, U users, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.log import Interactions
from macrorec.eval import metrics

HISTORIES = (1, 5, 20, 100)
"""Lower ends of the cohorts of user or item history beside the cold one, which has none; the last one is open."""
HISTORY_COLUMNS = ("user_history", "item_history")

Counts = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]


def ranges(lows: Sequence[int]) -> list[str]:
    """Names of the ranges that begin at ``lows``: "0", "1-4", "5+"."""
    return [
        f"{low}+" if high is None else (f"{low}" if high == low + 1 else f"{low}-{high - 1}")
        for low, high in zip(lows, [*lows[1:], None], strict=True)
    ]


def reengaged(earlier: Sequence[Interactions], pair_E: Counts) -> Rows | None:
    """Which held-out pairs the user has met in an auxiliary behaviour of the parts ``earlier``, shape (E,).

    ``pair_E`` are those of ``Interactions.pairs``: sorted, distinct. None where ``earlier`` holds no auxiliary event.
    """
    known_E, n_events = np.zeros(len(pair_E), dtype=bool), 0
    for part in earlier:
        rows = part.of("auxiliary")
        n_events += len(rows)
        key = rows.user.astype(np.int64) * len(rows.items) + rows.item
        place = np.searchsorted(pair_E, key)
        place[place == len(pair_E)] = 0
        known_E[place[pair_E[place] == key]] = True
    return known_E if n_events else None


def history_lengths(earlier: Sequence[Interactions], pairs: Interactions) -> tuple[Counts, Counts]:
    """How many events of the user, and of the item, of each of ``pairs`` the parts ``earlier`` hold, shapes (B,).

    Events count as in the macro graph: not those of a negative behaviour, and of the target behaviour only those whose
    label, if there are labels, is above .5.
    """
    user_U, item_I = np.zeros(len(pairs.users), dtype=np.int64), np.zeros(len(pairs.items), dtype=np.int64)
    for part in earlier:
        counts = np.array([behavior.role != "negative" for behavior in part.behaviors])[part.behavior]
        if part.label is not None:
            counts &= (part.behavior != part.target) | (part.label > 0.5)
        user_U += np.bincount(part.user[counts], minlength=len(user_U))
        item_I += np.bincount(part.item[counts], minlength=len(item_I))
    return user_U[pairs.user], item_I[pairs.item]


def cohorts(user_history_B: Counts, item_history_B: Counts) -> dict[str, Rows]:
    """Which impressions are in which cohort, shapes (B,).

    ``all``; ``warm``: user and item have history; then a partition by the user's history ("cold user", "user 1-4", ...)
    and one by the item's.
    """
    answer = {"all": np.ones(len(user_history_B), dtype=bool), "warm": (user_history_B > 0) & (item_history_B > 0)}
    for side, history_B in (("user", user_history_B), ("item", item_history_B)):
        place_B = np.searchsorted(HISTORIES, history_B, side="right")
        names = [f"cold {side}", *(f"{side} {name}" for name in ranges(HISTORIES))]
        answer |= {name: place_B == number for number, name in enumerate(names)}
    return answer


def breakdown(samples: pl.DataFrame) -> pl.DataFrame:
    """``cohort, impressions, positives, users, auc, gauc, logloss, calibration``: a row per cohort, empty ones too.

    ``samples`` has ``user_id, label, logit`` and, for more than the cohort "all", ``user_history, item_history``. Null
    is what a cohort cannot tell: AUC of one class, GAUC without a user of both, anything of nobody.
    """
    user_B = (samples["user_id"].rank("dense").to_numpy() - 1).astype(np.int64)
    label_B, logit_B = samples["label"].to_numpy(), samples["logit"].to_numpy()
    if set(HISTORY_COLUMNS) <= set(samples.columns):
        rows = cohorts(*(samples[name].to_numpy() for name in HISTORY_COLUMNS))
    else:
        rows = {"all": np.ones(len(samples), dtype=bool)}
    table = [{"cohort": name} | measured(user_B[of], label_B[of], logit_B[of]) for name, of in rows.items()]
    kinds = {"cohort": pl.String} | dict.fromkeys(("impressions", "positives", "users"), pl.Int64)
    return pl.DataFrame(table, schema=kinds | dict.fromkeys(("auc", "gauc", "logloss", "calibration"), pl.Float64))


def measured(user_B: Counts, label_B: npt.NDArray[Any], logit_B: npt.NDArray[Any]) -> dict[str, int | float | None]:
    """One row of ``breakdown``, without its name."""
    p_B = metrics.sigmoid(logit_B)
    values = {
        "auc": metrics.auc(label_B, logit_B),
        "gauc": metrics.gauc(user_B, label_B, logit_B),
        "logloss": metrics.logloss(label_B, p_B) if len(p_B) else np.nan,
        "calibration": metrics.calibration_error(label_B, p_B) if len(p_B) else np.nan,
    }
    counts = {"impressions": len(label_B), "positives": int((label_B > 0.5).sum()), "users": len(np.unique(user_B))}
    return counts | {name: None if np.isnan(value) else value for name, value in values.items()}


def reliability(samples: pl.DataFrame) -> pl.DataFrame:
    """The reliability curve: ``bins`` ("width" or "mass"), ``bin``, ``predicted``, ``positive``, ``n``.

    Per bin that is not empty: the mean predicted probability, the share of positives, and the number of impressions.
    Bins as in ``metrics.bins_of_width`` and ``metrics.bins_of_mass``.
    """
    p_B = metrics.sigmoid(samples["logit"].to_numpy())
    frames = [
        pl.DataFrame({"bin": bins(p_B), "predicted": p_B, "positive": samples["label"].cast(pl.Float64)})
        .group_by("bin")
        .agg(pl.mean("predicted", "positive"), pl.len().cast(pl.Int64).alias("n"))
        .sort("bin")
        .select(pl.lit(name).alias("bins"), pl.all())
        for name, bins in (("width", metrics.bins_of_width), ("mass", metrics.bins_of_mass))
    ]
    return pl.concat(frames)
