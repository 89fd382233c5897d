"""What is there to recommend? Items of the fit and those announced since: categories, titles, groups, and who is new.

A new item joins the macro node of its category: it has that group's counts from the start, and for a model with vectors
the mean of the vectors of the fitted items of its category. Shape letters: I items, C categories, D embedding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.graph.groups import UNKNOWN
from macrorec.graph.slabs import longer
from macrorec.serve.counts import Counts
from macrorec.serve.deployment import Deployment
from macrorec.serve.idtable import IdTable

Ints = npt.NDArray[np.int64]

FRESH = 64
"""New items that each group remembers, the newest."""


class Catalogue:
    """All items, by numbers of the state: those of the fit, then those announced, in order."""

    def __init__(self, deployment: Deployment, counts: Counts | None) -> None:
        bundle = deployment.retriever_bundle
        self.ids = IdTable(bundle.items.ids.cast(pl.String))
        self.n_fitted = len(bundle.items)
        self._retriever = deployment.retriever
        self._items_ID = deployment.items_ID
        self._titles = _titles(deployment)
        self._own_titles: dict[int, str] = {}
        named = counts is not None and bool(counts.macro.items.names)
        self.categories: list[str] = list(counts.macro.items.names) if counts and named else []
        self._number = {name: number for number, name in enumerate(self.categories)}
        self._groups = len(self.categories)
        self.category_I = np.full(self.n_fitted, UNKNOWN, np.int32)
        if counts is not None and named:
            self.category_I[:] = counts.groups(np.arange(self.n_fitted))
        self._vector_of: dict[int, npt.NDArray[np.float32] | None] = {}
        self.placed_I = np.ones(self.n_fitted, np.bool_)
        """Whether a search by vector can find the item."""
        self.fresh: dict[int, deque[int]] = {}
        """The newest items of each group of the ranker."""

    def __len__(self) -> int:
        return len(self.ids)

    def announce(self, item_id: str, category: str | None, title: str | None) -> tuple[int, int]:
        """Take in a new item: its number, and its group of the ranker or ``UNKNOWN``."""
        number = int(self.ids.add([item_id])[0])
        kind = UNKNOWN if category is None else self._category(category)
        if number >= len(self.category_I):
            room = number + number // 2 + 8
            self.category_I = longer(self.category_I, room, UNKNOWN)
            self.placed_I = longer(self.placed_I, room)
        self.category_I[number] = kind
        vector_D = self._mean(kind) if kind >= 0 else None
        self.placed_I[number] = vector_D is not None
        if self._retriever is not None and self._items_ID is not None:
            empty = np.zeros(self._items_ID.shape[1], np.float32)
            self._retriever.append((empty if vector_D is None else vector_D)[None])
        group = kind if kind < self._groups else UNKNOWN
        if group >= 0:
            self.fresh.setdefault(group, deque(maxlen=FRESH)).appendleft(number)
        self.retitle(number, title)
        return number, group

    def retitle(self, number: int, title: str | None) -> None:
        """An item's title is this one from now on, if it is one."""
        if title is not None:
            self._own_titles[number] = title

    def title(self, number: int) -> str | None:
        """The item's name for people, where it has one."""
        if number in self._own_titles:
            return self._own_titles[number]
        told = self._titles[number] if self._titles is not None and number < self.n_fitted else None
        return None if told is None else str(told)

    def category(self, number: int) -> str | None:
        """The name of the item's category, where it has one that is known by name."""
        kind = int(self.category_I[number])
        return self.categories[kind] if kind >= 0 else None

    def of_categories(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which categories have one of these names, shape (C + 1,); the last stands for none."""
        chosen_C = np.zeros(len(self.categories) + 1, np.bool_)
        chosen_C[[self._number[name] for name in names if name in self._number]] = True
        return chosen_C

    def vector(self, number: int) -> Any:
        """The vector of an item of the fit, or the one that an announced item was given."""
        if number < self.n_fitted:
            return None if self._items_ID is None else self._items_ID[number]
        return self._mean(int(self.category_I[number])) if self.category_I[number] >= 0 else None

    def _category(self, name: str) -> int:
        if name not in self._number:
            self._number[name] = len(self.categories)
            self.categories.append(name)
        return self._number[name]

    def _mean(self, kind: int) -> Any:
        """The mean vector of the fitted items of a category; None where there are none."""
        if kind not in self._vector_of:
            members = np.flatnonzero(self.category_I[: self.n_fitted] == kind)
            items_ID = self._items_ID
            self._vector_of[kind] = items_ID[members].mean(0) if items_ID is not None and len(members) else None
        return self._vector_of[kind]


def _titles(deployment: Deployment) -> pl.Series | None:
    """A name per fitted item: the retriever's, and where it knows none at all, the ranker's; null without one."""
    own, ranker = deployment.retriever_bundle.titles, deployment.ranker_bundle
    if own is not None or ranker is None or ranker.titles is None:
        return own
    known_I = deployment.ranker_items_I >= 0
    titles = ranker.titles.gather(np.where(known_I, deployment.ranker_items_I, 0))
    return pl.select(pl.when(pl.Series(known_I)).then(titles)).to_series()
