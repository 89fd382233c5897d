"""What is known of every user and item, right now? All that events change, for one model, kept up event by event.

A state is made of a deployment and a ``Ledger``: however the ledger's rows are cut into steps, it comes out the same,
and as ``macrorec.live.after`` would make it of all events at once. Numbers of users and items are those of the
retrieving bundle; later ones follow in order of appearance. Shape letters: E events, B items, L the ledger's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.bundle import Bundle
from macrorec.graph.candidates import Candidates
from macrorec.graph.columns import Features
from macrorec.graph.slabs import longer
from macrorec.serve.catalogue import Catalogue
from macrorec.serve.counts import Counts, distinct
from macrorec.serve.deployment import Deployment
from macrorec.serve.events import hidden
from macrorec.serve.histories import Histories
from macrorec.serve.idtable import IdTable
from macrorec.serve.ledger import Announcement, Ledger, Rows
from macrorec.serve.lock import ReadWrite
from macrorec.serve.log import Batch
from macrorec.serve.popularity import Popularity

Ints = npt.NDArray[np.int64]

STEP = 128
"""Events that are counted before readers get a turn: about a millisecond."""
TOP = 2_048
"""Most popular items that are always known in order."""
GROUP_TOP = 256
"""The same of each group."""
_UNSEEN, _UNKNOWN = -2, -1


@dataclass(frozen=True, slots=True, eq=False)
class UserView:
    """What is known of one user at one moment."""

    number: int
    """In the state; -1 for one whom only the ranker knows."""
    fitted: int
    """In the fit of the retriever; -1 for one who came later."""
    ranker: int
    """In the ranker; -1 where that knows nothing."""
    items: Ints
    """By the target behaviour, distinct, the newest last."""
    masked: Ints
    """What is left out of answers, sorted."""
    events: int
    """Since the fit."""
    groups_Q: npt.NDArray[np.float64] | None
    """Weights of the groups of items, where there is a ranker that has met the user."""

    @property
    def changed(self) -> bool:
        """Whether the model's own row of the user is out of date."""
        return self.events > 0


class State:
    """Everything live of one model. One thread changes it, many read."""

    def __init__(self, deployment: Deployment) -> None:
        """As of the fit. Takes over the deployment's search and macro graph: one state per deployment."""
        self.deployment = deployment
        bundle = deployment.retriever_bundle
        self.users = IdTable(bundle.users.ids.cast(pl.String))
        self.n_fitted = len(bundle.users)
        ranks = deployment.ranker_bundle
        mapped = deployment.ranker_users_U, deployment.ranker_items_I
        self.counts = None if ranks is None else Counts(ranks, *mapped, self.users)
        self.catalogue = Catalogue(deployment, self.counts)
        n_items = len(self.catalogue)
        self.histories = Histories(bundle.graph, self.n_fitted + 1, n_items)
        self._behaviors = [behavior.name for behavior in bundle.graph.behaviors]
        count_I = self.histories.count_I
        self.popularity = Popularity(count_I[:n_items], np.zeros(n_items, np.int32), 1, TOP)
        self.by_group: Popularity | None = None
        if self.counts is not None:
            groups_I, n_groups = self.counts.groups(np.arange(n_items)), self.counts.macro.items.n
            self.by_group = Popularity(count_I[:n_items], groups_I, n_groups, GROUP_TOP)
        self._user_L = np.full(8, _UNSEEN, np.int64)
        self._item_L = np.full(8, _UNSEEN, np.int64)
        self._announced = 0
        self.since = int((bundle.config.get("serve") or {}).get("position", 0))
        """Position of the log up to which the bundle was fitted to its events: they are not counted again."""
        self.row = 0
        """Rows of the ledger that are counted, or were at the fit."""
        self.position = 0
        """Of the log: entries up to here are counted."""
        self.passed_over = 0
        """Events of items that nobody has announced."""
        self._lock = ReadWrite()
        if (bundle.config.get("recommender") or {}).get("events"):
            self._update(kept_events(bundle, self.counts))

    # --- writing ---

    def extend(self, ledger: Ledger, last: int | None = None, *, serving: bool = True) -> None:
        """Count the ledger's rows up to ``last`` and what was announced before them.

        ``serving``: others read meanwhile, and wait for a step at the longest; else much goes at once, and faster.
        """
        last = len(ledger) if last is None else last
        if self.since and not self.row:
            self.row = min(ledger.row_after(self.since), last)
        due = [one for one in ledger.announced[self._announced :] if one.row <= last]
        for announcement in due:
            with self._lock.writing():
                self._announce(ledger, announcement)
                self._announced += 1
        while self.row < last:
            stop = min(self.row + STEP, last) if serving else last
            with self._lock.writing():
                self._count(ledger, ledger.rows(self.row, stop), np.arange(self.row, stop), serving)
                self.row = stop
            if self._lock.awaited:
                time.sleep(2e-5)  # else this thread would often take the lock again before those who wait
        if last == len(ledger):
            self.position = ledger.position

    def forget(self, *user_ids: str) -> None:
        """Users have done nothing, by the fit or since; who comes with such an id later is somebody new."""
        for user_id in user_ids:
            with self._lock.writing():
                number = self.users.number(user_id)
                if self.counts is not None:
                    self.counts.forget(number, user_id)
                if number >= 0:
                    lost = self.histories.forget(number)
                    self.users.withdraw(number)
                    for popularity in filter(None, (self.popularity, self.by_group)):
                        popularity.lost(lost, self.histories.count_I)

    def leave(self, forgotten: Sequence[str] | set[str], secret: bytes) -> None:
        """The bundle's users whose ids have these hashes by ``secret`` have done nothing: they left before."""
        if not forgotten:
            return
        own, ranker = set(forgotten), self.deployment.ranker_bundle
        known = [self.users.series().drop_nulls(), *([] if ranker is None else [ranker.users.ids.cast(pl.String)])]
        for ids in known:
            self.forget(*(one for one in ids if hidden(one, secret) in own))

    def _update(self, kept: Ledger) -> None:
        """Count events that the bundle keeps beside its fit, as before all others."""
        if len(kept):
            self._count(kept, kept.rows(0, len(kept)), np.arange(-len(kept), 0), False)
            self._user_L[:], self._item_L[:] = _UNSEEN, _UNSEEN

    def _announce(self, ledger: Ledger, told: Announcement) -> None:
        self._make_room(ledger)
        item_id = ledger.items.id_of(told.item)
        number = self.catalogue.ids.number(item_id)
        if number >= 0:
            self.catalogue.retitle(number, told.title)
            self._item_L[told.item] = number
            return
        number, group = self.catalogue.announce(item_id, told.category, told.title)
        self._item_L[told.item] = number
        self.histories.grow(0, number + 1)
        if self.counts is not None and self.by_group is not None:
            self.counts.add_items(np.array([number]), np.array([group]))
            self.by_group.grow(number + 1, np.array([group]))
            self.by_group.gained(np.array([number]), self.histories.count_I)
        self.popularity.grow(number + 1, np.zeros(1, np.int32))
        self.popularity.gained(np.array([number]), self.histories.count_I)
        before = ledger.rows_of_item(told.item, self.row)
        before = before[before >= ledger.row_after(self.since)] if self.since else before
        if len(before):  # events of the item that came before it was announced
            self.passed_over -= len(before)
            for row in before.tolist():
                self._count(ledger, ledger.rows(row, row + 1), np.array([row]), True)

    def _make_room(self, ledger: Ledger) -> None:
        if len(ledger.users) > len(self._user_L):
            self._user_L = longer(self._user_L, max(len(ledger.users), 2 * len(self._user_L)), _UNSEEN)
        if len(ledger.items) > len(self._item_L):
            self._item_L = longer(self._item_L, max(len(ledger.items), 2 * len(self._item_L)), _UNSEEN)

    def _count(self, ledger: Ledger, rows: Rows, arrival_E: Ints, serving: bool) -> None:
        """Count some rows."""
        self._make_room(ledger)
        new = distinct(rows.item_E[self._item_L[rows.item_E] == _UNSEEN])
        if len(new):
            self._item_L[new] = self.catalogue.ids.numbers(ledger.items.series().gather(pl.Series(new)))
        names = ledger.behaviors
        of_R = np.array([self._behaviors.index(name) if name in self._behaviors else -1 for name in names])
        there_E = rows.user_E >= 0
        known_E = there_E & (self._item_L[rows.item_E] >= 0)
        self.passed_over += int(np.count_nonzero(there_E & ~known_E))
        if not known_E.any():
            return
        if not known_E.all():
            rows, arrival_E = Rows(*(column[known_E] for column in rows)), arrival_E[known_E]
        new = distinct(rows.user_E[self._user_L[rows.user_E] == _UNSEEN])
        if len(new):
            many = len(new) > STEP
            self._meet(new, ledger.users.series().gather(pl.Series(new)) if many else ledger.users.ids_of(new))
        user_E, item_E, behavior_E = self._user_L[rows.user_E], self._item_L[rows.item_E], of_R[rows.behavior_E]
        own = slice(None) if (behavior_E >= 0).all() else behavior_E >= 0
        own_E = user_E[own], item_E[own], behavior_E[own], arrival_E[own]
        counts = self.counts
        if counts is None:
            gained = self.histories.apply(*own_E)
        else:
            columns = rows.behavior_E, rows.time_E, rows.weight_E, rows.label_E
            if serving:
                counts.add(user_E, item_E, names, *columns)
                gained = self.histories.apply(*own_E)
            else:
                with ThreadPoolExecutor(1) as beside:
                    applied = beside.submit(self.histories.apply, *own_E)
                    counts.add(user_E, item_E, names, *columns, anew=True)
                gained = applied.result()
        for popularity in filter(None, (self.popularity, self.by_group)):
            popularity.gained(gained, self.histories.count_I)

    def _meet(self, new: Ints, ids: Any) -> None:
        """Users of the ledger have an event for the first time."""
        before = len(self.users)
        numbers = self.users.add(ids)
        self._user_L[new] = numbers
        self.histories.grow(len(self.users), 0)
        if self.counts is not None:
            newcomers = numbers >= before
            chosen = [one for one, is_new in zip(list(ids), newcomers.tolist(), strict=True) if is_new]
            self.counts.add_users(numbers[newcomers], chosen)

    # --- reading ---

    def user(self, user_id: str) -> UserView | None:
        """What is known of a user; None for one of whom nothing is."""
        with self._lock.reading():
            number = self.users.number(user_id)
            ranker = -1
            if self.counts is not None:
                ranker = self.counts.number(number) if number >= 0 else self.counts.other(user_id)
            if number < 0 and ranker < 0:
                return None
            groups_Q = self.counts.hop1(ranker) if self.counts is not None and ranker >= 0 else None
            if number < 0:
                nothing = np.empty(0, np.int64)
                return UserView(-1, -1, ranker, nothing, nothing, 0, groups_Q)
            fitted = number if number < self.n_fitted else -1
            own = self.histories
            return UserView(number, fitted, ranker, own.items(number), own.masked(number), own.events(number), groups_Q)

    def masked_since(self, view: UserView) -> Ints | None:
        """What is left out of the user's answers now; None where nothing has happened since the view."""
        if view.number < 0 or self.histories.events(view.number) == view.events:
            return None
        with self._lock.reading():
            return self.histories.masked(view.number)

    def features(self, ranker: int, items: Ints) -> Features:
        """What the ranker sees of one of its users, -1 for a new one, with B items."""
        assert self.counts is not None
        with self._lock.reading():
            return self.counts.features(ranker, items)

    def candidates(self, ranker: int, items: Ints) -> Candidates:
        """The same, as a compiled loop takes it."""
        assert self.counts is not None
        with self._lock.reading():
            return self.counts.candidates(ranker, items)

    def met_by(self, items: Ints) -> npt.NDArray[np.float64]:
        """Weights (B, P) of the ranker's groups of users that have met each of B items."""
        assert self.counts is not None
        with self._lock.reading():
            return self.counts.met_by(items)

    def numbers(self, item_ids: Sequence[str]) -> Ints:
        """Numbers of items, -1 where unknown."""
        with self._lock.reading():
            return self.catalogue.ids.numbers(item_ids)

    def popular(self, n: int, group: int | None = None) -> tuple[Ints, Ints]:
        """The most popular items, of all or of one group of the ranker, and their users; at least n if there are."""
        with self._lock.reading():
            count_I = self.histories.count_I
            if group is not None:
                assert self.by_group is not None
                items = self.by_group.best(group, count_I)
            else:
                items = self.popularity.best(0, count_I)
                if len(items) < min(n, len(self.catalogue)):
                    everything = np.arange(len(self.catalogue))
                    items = np.lexsort((everything, -count_I[: len(everything)]))
            return items, count_I[items]

    def count(self, items: Ints) -> Ints:
        """Users of each item by the target behaviour."""
        with self._lock.reading():
            return self.histories.count_I[items]

    def told(self) -> dict[str, Any]:
        """Sizes, for health and metrics."""
        counts = 0 if self.counts is None else self.counts.nbytes
        return {
            "users": len(self.users),
            "items": len(self.catalogue),
            "events": self.row,
            "position": self.position,
            "unknown_items": self.passed_over,
            "bytes": self.histories.nbytes + counts,
        }


def kept_events(bundle: Bundle, counts: Counts | None) -> Ledger:
    """The events that ``Recommender.update`` has brought to a bundle since its fit."""
    kept = pl.DataFrame(bundle.config["recommender"]["events"])
    ledger = Ledger()
    if not len(kept):
        return ledger
    unit, latest = (1, 0) if counts is None else (counts.unit, counts.macro.latest)
    frame = kept.select(
        pl.arange(1, pl.len() + 1).alias("position"),
        pl.col("user_id", "item_id").cast(pl.String),
        "behavior",
        (pl.col("timestamp").cast(pl.Int64).fill_null(latest) // unit).alias("timestamp"),
        pl.col("weight").cast(pl.Float64),
        pl.when(pl.col("type") == 1).then(float("-inf")).alias("label"),  # a target event rated too low
    )
    ledger.append(Batch(frame["position"].to_numpy(), events=frame))
    return ledger
