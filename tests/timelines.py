"""Small logs in time, cut at given times, and what an impression's features are by the book."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.logs import raw

from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.graph.columns import Features
from macrorec.graph.features import FeatureSet, Samples

BEHAVIORS = (
    Behavior(name="view", role="auxiliary", weight=0.5, mask=False),
    Behavior(name="hide", role="negative", mask=False),
    Behavior(name="buy"),
)
COLUMNS = "user item behavior time label"
Row = tuple[int, int, str, int, float]
"""User, item, behaviour, time, label; only that of ``buy`` has a meaning."""
Event = tuple[int, int, float]
"""User, item, weight: what counts."""
Dated = tuple[int, int, float, int]
"""An event and its time."""


def cut_at(rows: Sequence[Sequence[Any]], valid: int, test: int, columns: str = COLUMNS) -> Split:
    """A split of ``rows``, kept in this order among equal times: valid is later than ``valid``, test than ``test``."""
    log = prepare({"train": raw(columns, *rows)}, BEHAVIORS, PrepareConfig(dedupe="none")).train
    assert log.time is not None
    parts = log.time <= valid, (log.time > valid) & (log.time <= test), log.time > test
    return Split(*(log.take(part) for part in parts), protocol={})


def whole(found: FeatureSet) -> list[tuple[Samples, int]]:
    """Every sample of train, valid and test, as (samples, place)."""
    return [(samples, place) for samples in found.samples.values() for place in range(len(samples))]


def numbers(features: Features, place: int) -> dict[str, Any]:
    """The features of one impression, as plain lists."""
    return {name: getattr(features, name)[place].tolist() for name in Features.__slots__}


@dataclass
class Book:
    """The features of (5) by their definition: one loop per sum."""

    events: Sequence[Event]
    """Those that an impression may see, in order of time."""
    user_group: Sequence[int]
    item_group: Sequence[int]
    n_user_groups: int
    n_item_groups: int
    recents: int

    def of(self, user: int, item: int) -> dict[str, Any]:
        """The features of an impression, named as in ``Features``."""
        mine = [(i, w) for u, i, w in self.events if u == user]
        its = [(u, w) for u, i, w in self.events if i == item]
        return {
            "user_B": user,
            "item_B": item,
            "user_group_B": self.user_group[user],
            "item_group_B": self.item_group[item],
            "user_hop1_BQ": self._hop1_user(user),
            "user_hop2_BP": self._sum(self.n_user_groups, ((w, self._hop1_item(i)) for i, w in mine)),
            "item_hop1_BP": self._hop1_item(item),
            "item_hop2_BQ": self._sum(self.n_item_groups, ((w, self._hop1_user(u)) for u, w in its)),
            "user_recent_BR": self._latest([i for i, _ in mine]),
            "item_recent_BR": self._latest([u for u, _ in its]),
            "user_volume_BC": [len(mine)],
            "item_volume_BC": [len(its)],
        }

    def _hop1_user(self, user: int) -> list[float]:
        pairs = [(self.item_group[i], w) for u, i, w in self.events if u == user]
        return [sum(w for q, w in pairs if q == group) for group in range(self.n_item_groups)]

    def _hop1_item(self, item: int) -> list[float]:
        pairs = [(self.user_group[u], w) for u, i, w in self.events if i == item]
        return [sum(w for p, w in pairs if p == group) for group in range(self.n_user_groups)]

    def _sum(self, n: int, rows: Iterable[tuple[float, list[float]]]) -> list[float]:
        total = [0.0] * n
        for weight, row in rows:
            total = [t + weight * value for t, value in zip(total, row, strict=True)]
        return total

    def _latest(self, others: list[int]) -> list[int]:
        latest = others[::-1][: self.recents]
        return latest + [-1] * (self.recents - len(latest))


def counted(log: Interactions) -> list[Dated]:
    """User, item, weight and time of the rows that count as history, in the log's order."""
    return _events(log, lambda role, label: role == "auxiliary" or (role == "target" and label > 0.5))


def disliked(log: Interactions) -> list[Dated]:
    """The same of the rows that are history of the second type where edges are signed."""
    return _events(log, lambda role, label: role == "target" and label <= 0.5)


def _events(log: Interactions, wanted: Callable[[str, float], bool]) -> list[Dated]:
    assert log.time is not None
    found = []
    for row in range(len(log)):
        behavior = log.behaviors[log.behavior[row]]
        if wanted(behavior.role, 1.0 if log.label is None else float(log.label[row])):
            weight = behavior.weight * (1.0 if log.weight is None else float(log.weight[row]))
            found.append((int(log.user[row]), int(log.item[row]), weight, int(log.time[row])))
    return found


def beside(liked: dict[str, Any], not_liked: dict[str, Any]) -> dict[str, Any]:
    """The features of an impression where edges are signed: counts of both types, all else of the first."""
    return {
        name: value + not_liked[name] if "hop" in name or "volume" in name else value for name, value in liked.items()
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two impressions have the same features, to the last bit."""
    return all(np.array_equal(a[name], b[name]) for name in a)
