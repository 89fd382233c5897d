"""Which rows of a log are history, and which are impressions to learn from and to be measured on?

History is every event that counts: rows of a behaviour that is not negative, those of the target behaviour only where
their label, if the log has labels, is above .5; with signed edges the others count, too, as events of a second type.
Impressions are labelled rows of the target behaviour after a boundary
in time. In a log without labels every positive after the boundary is one, and drawn items are the others.

Shape letters: E rows of the log, H events of the history, S impressions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from macrorec.data.log import PARTS, Interactions, Split, concat
from macrorec.errors import ConfigError, DataError

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Ties = Literal["apart", "row"]

_ROUNDS = 20
"""Draws of a negative before those still unlucky choose among what the user lacks."""


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A log in order of time: by (time, part, row). Times never fall along H, nor along S."""

    boundary: int
    """Time of the last row that only serves as history."""
    n_first: int
    """Events of the history up to the boundary."""
    user_H: npt.NDArray[np.int32]
    item_H: npt.NDArray[np.int32]
    weight_H: npt.NDArray[np.float64] | None
    """Event weight x behaviour weight; None if each is 1."""
    time_H: Ints
    part_H: npt.NDArray[np.int8]
    """Index into ``PARTS``."""
    type_H: npt.NDArray[np.int8] | None
    """With signed edges: 0 for positive events, 1 for target events of label up to .5; None: all are positive."""
    rows: Interactions
    """The impressions, with labels of 0 or 1."""
    part_S: npt.NDArray[np.int8]
    before_S: Ints
    """Events of the history that stand before each impression; never falls."""
    n_rows: tuple[int, int, int]
    """Rows in each part that could be impressions, those up to the boundary included."""

    def events(self, chosen: slice | Mask) -> tuple[Any, ...]:
        """User, item, weight, time and, with signed edges, type of some events, as a macro graph takes them."""
        weight = None if self.weight_H is None else self.weight_H[chosen]
        columns = self.user_H[chosen], self.item_H[chosen], weight, self.time_H[chosen]
        return columns if self.type_H is None else (*columns, self.type_H[chosen])

    def positives(self) -> Timeline:
        """The same impressions with the positive events alone."""
        if self.type_H is None:
            return self
        positive_H = self.type_H == 0
        user, item, weight, time, _ = self.events(positive_H)
        before_H = np.append(0, np.cumsum(positive_H))
        return replace(
            self,
            n_first=int(before_H[self.n_first]),
            user_H=user,
            item_H=item,
            weight_H=weight,
            time_H=time,
            part_H=self.part_H[positive_H],
            type_H=None,
            before_S=before_H[self.before_S],
        )

    def keep(self, keep_S: Mask) -> Timeline:
        """The same history with some of the impressions."""
        rows, part_S, before_S = self.rows.take(keep_S), self.part_S[keep_S], self.before_S[keep_S]
        return replace(self, rows=rows, part_S=part_S, before_S=before_S)


def timeline(
    split: Split, history: float, *, ties: Ties = "apart", negatives: int = 0, signed: bool = False, seed: int = 0
) -> Timeline:
    """The history and the impressions of ``split``, all parts together.

    The boundary is the least time that a share ``history`` of the target rows of all parts does not exceed. An event
    of the same time as an impression stands before it if ``ties`` is "row" and its row is earlier, else it does not.
    Among rows of equal time those of train are earlier than those of valid, these than those of test.

    Raises DataError for a log without times, without labels (and ``negatives`` 0), with labels outside [0, 1], for one
    whose rows all have one time, or have none after the boundary; ConfigError for ``negatives`` beside labels.
    """
    log, part_E = concat(*(split.part(name) for name in PARTS)), _parts(split)
    if log.time is None:
        raise DataError("features of impressions need times, and the log has no column 'timestamp'")
    if len(log) and (log.time[1:] < log.time[:-1]).any():
        order = np.argsort(log.time, kind="stable")
        log, part_E = log.take(order), part_E[order]
    assert log.time is not None
    positive, candidate = _roles(log, negatives)
    counts = positive | candidate if signed else positive
    boundary = _boundary(log, history)
    n_before = int(log.time.searchsorted(boundary, side="right"))

    event_H = np.flatnonzero(counts)
    row_S = n_before + np.flatnonzero(candidate[n_before:])
    if not len(row_S):
        _no_impression(log, candidate, boundary, history)
    first_E = log.time.searchsorted(log.time[row_S], side="left") if ties == "apart" else row_S
    before_S = event_H.searchsorted(first_E)
    rows, part_S = log.take(row_S), part_E[row_S]
    if log.label is None:
        rows = replace(rows, label=np.ones(len(rows), dtype=np.float32))
    if negatives:
        rows = _with_negatives(log.take(event_H), rows, negatives, seed)
        part_S, before_S = part_S.repeat(1 + negatives), before_S.repeat(1 + negatives)
    n_first = int(event_H.searchsorted(n_before))
    if not positive[event_H[:n_first]].any():
        raise DataError(f"no positive event up to time {boundary}: there is no history to make features from")
    n_rows = np.bincount(part_E[candidate], minlength=len(PARTS))
    return Timeline(
        boundary=boundary,
        n_first=n_first,
        user_H=log.user[event_H],
        item_H=log.item[event_H],
        weight_H=_weights(log, event_H),
        time_H=log.time[event_H],
        part_H=part_E[event_H],
        type_H=(~positive[event_H]).astype(np.int8) if signed else None,
        rows=rows,
        part_S=part_S,
        before_S=before_S,
        n_rows=(int(n_rows[0]), int(n_rows[1]), int(n_rows[2])),
    )


def _parts(split: Split) -> npt.NDArray[np.int8]:
    return np.arange(len(PARTS), dtype=np.int8).repeat([len(split.part(name)) for name in PARTS])


def _roles(log: Interactions, negatives: int) -> tuple[Mask, Mask]:
    """Which rows (E,) count as history, and which could be impressions."""
    target_E = log.behavior == log.target
    counts_E = np.array([b.role != "negative" for b in log.behaviors])[log.behavior]
    name = log.behaviors[log.target].name
    if log.label is None:
        if not negatives:
            raise DataError("the log has no column 'label': set features.negatives, so that items are drawn as label 0")
        return counts_E, target_E
    if negatives:
        raise ConfigError(
            f"features.negatives is {negatives}, but the log has labels; it is for logs without: set it to 0"
        )
    label_E = log.label
    known_E = target_E & ~np.isnan(label_E)
    if not known_E.any():
        raise DataError(f"no row of {name!r} carries a label: there is no impression to learn from")
    low, high = float(label_E[known_E].min()), float(label_E[known_E].max())
    if low < 0 or high > 1:
        raise DataError(f"labels must lie in [0, 1], and run from {low:g} to {high:g}: set prepare.binary")
    return counts_E & (~target_E | (label_E > 0.5)), known_E


def _boundary(log: Interactions, history: float) -> int:
    """The least time that a share ``history`` of the target rows does not exceed; rows are in order of time."""
    assert log.time is not None
    rows = np.flatnonzero(log.behavior == log.target)
    if not len(rows):
        raise DataError(f"the log has no {log.behaviors[log.target].name!r} event")
    return int(log.time[rows[max(math.ceil(history * len(rows) - 1e-9) - 1, 0)]])


def _no_impression(log: Interactions, candidate: Mask, boundary: int, history: float) -> None:
    assert log.time is not None
    if log.time[0] == log.time[-1]:
        raise DataError(f"all {len(log):,} events have the same time, {boundary}: none is history of another")
    raise DataError(
        f"none of {np.count_nonzero(candidate):,} impressions is later than {boundary}, the time that a share "
        f"{history:g} of the events does not exceed: lower features.history"
    )


def _weights(log: Interactions, event_H: Ints) -> npt.NDArray[np.float64] | None:
    of_behavior = np.array([b.weight for b in log.behaviors])
    if log.weight is None and (of_behavior == 1).all():
        return None
    scale = of_behavior[log.behavior[event_H]]
    return scale if log.weight is None else scale * log.weight[event_H]


def _with_negatives(history: Interactions, positives: Interactions, n: int, seed: int) -> Interactions:
    """Each positive, followed by ``n`` items of label 0 that its user had not met up to that moment, where there are.

    Draws are in the order of time, round by round, each with its own generator: what comes later changes none.
    """
    assert positives.time is not None and history.time is not None
    n_items = len(positives.items)
    user_S, time_S = positives.user.repeat(n).astype(np.int64), positives.time.repeat(n)
    key_H = history.user.astype(np.int64) * n_items + history.item
    order = np.argsort(key_H, kind="stable")  # by pair, then time
    met, at = np.unique(key_H[order], return_index=True)
    since = history.time[order][at]

    def is_met(pending: Ints, items: Ints) -> Mask:
        key = user_S[pending] * n_items + items
        place = np.minimum(met.searchsorted(key), len(met) - 1)
        known: Mask = (met[place] == key) & (since[place] <= time_S[pending])
        return known

    drawn_S = np.zeros(len(user_S), dtype=np.int64)
    pending = np.arange(len(user_S))
    for draw in range(_ROUNDS):
        drawn_S[pending] = _generator(seed, draw).integers(0, n_items, len(pending))
        pending = pending[is_met(pending, drawn_S[pending])]
        if not len(pending):
            break
    random = _generator(seed, _ROUNDS)
    for place in pending:
        missing = np.flatnonzero(~is_met(np.full(n_items, place), np.arange(n_items)))
        chance = random.random()
        if len(missing):
            drawn_S[place] = missing[int(chance * len(missing))]
    rows = positives.take(np.arange(len(positives)).repeat(1 + n))
    item, label = rows.item.reshape(-1, 1 + n).copy(), np.zeros((len(positives), 1 + n), dtype=np.float32)
    item[:, 1:], label[:, 0] = drawn_S.reshape(-1, n), 1
    return replace(rows, item=item.ravel(), label=label.ravel())


def _generator(seed: int, draw: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(draw,)))
