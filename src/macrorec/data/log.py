"""What do all stages share? Interactions (one table), its behaviours, and the Split that owns the clock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.vocab import Vocab
from macrorec.errors import DataError

COLUMNS = ("user_id", "item_id", "behavior", "timestamp", "weight", "label")
"""Columns of a raw log, in order; only the first two are required."""

Role = Literal["target", "auxiliary", "negative"]
PartName = Literal["train", "valid", "test"]
PARTS: tuple[PartName, ...] = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior:
    """One kind of event and what it means."""

    name: str
    """As it stands in the log's ``behavior`` column."""
    role: Role = "target"
    """``target`` is what we recommend for; ``auxiliary`` is evidence; ``negative`` speaks against the item."""
    weight: float = 1.0
    """Multiplies the weight of every event of this behaviour."""
    mask: bool = True
    """Whether items with this behaviour in train are left out of a user's ranking."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Interactions:
    """The one table every stage shares: arrays of shape (E,), with their vocabularies.

    Missing columns are None: no time, weight 1, no label. ``prepare`` puts rows in canonical order, by (time, original
    row), or without times by content, and ``take`` keeps it; only time-based cuts read it, to break ties of time.
    """

    users: Vocab
    items: Vocab
    behaviors: tuple[Behavior, ...]
    """All behaviours; exactly one has the role ``target``, and it stands last."""
    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    behavior: npt.NDArray[np.int8]
    """Index into ``behaviors``."""
    time: npt.NDArray[np.int64] | None = None
    """In the unit that the source declared (seconds or milliseconds)."""
    weight: npt.NDArray[np.float32] | None = None
    label: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        roles = [b.role for b in self.behaviors]
        if roles.count("target") != 1 or roles[-1] != "target":
            raise DataError(f"exactly one behaviour must have the role 'target', and stand last; got {self.behaviors}")
        for name in ("user", "item", "behavior", "time", "weight", "label"):
            column = getattr(self, name)
            assert column is None or column.shape == self.user.shape, name

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        names = "/".join(b.name for b in self.behaviors)
        return f"Interactions({len(self)} rows of {names}, {len(self.users)} users, {len(self.items)} items)"

    @property
    def target(self) -> int:
        """Index of the target behaviour: the last."""
        return len(self.behaviors) - 1

    def take(self, rows: npt.NDArray[Any]) -> Interactions:
        """The rows of a boolean mask or an index array, over the same vocabularies."""
        changed: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("user", "item", "behavior", "time", "weight", "label")
        }
        return replace(self, **changed)

    def of(self, role: Role) -> Interactions:
        """The rows whose behaviour has ``role``."""
        wanted = np.array([b.role == role for b in self.behaviors])
        return self.take(wanted[self.behavior])

    def pairs(self) -> npt.NDArray[np.int64]:
        """The distinct (user, item) pairs of the rows, sorted, one key ``user * n_items + item`` each."""
        return sorted_distinct(self.user.astype(np.int64) * len(self.items) + self.item)

    def frame(self) -> pl.DataFrame:
        """External ids and all present columns, under the names of ``COLUMNS``."""
        names = pl.Series([b.name for b in self.behaviors], dtype=pl.String)
        columns: dict[str, pl.Series] = {
            "user_id": self.users.ids_of(self.user),
            "item_id": self.items.ids_of(self.item),
            "behavior": names.gather(pl.Series(self.behavior.astype(np.int64))),
        }
        for column, values in (("timestamp", self.time), ("weight", self.weight), ("label", self.label)):
            if values is not None:
                columns[column] = pl.Series(values)
        return pl.DataFrame(columns)

    def digest(self) -> str:
        """SHA-256 over ids, behaviours and all rows in canonical order: equal content, equal digest."""
        hasher = hashlib.sha256(repr(self.behaviors).encode())
        for vocab in (self.users, self.items):
            for ids in vocab.ids.cast(pl.String):
                hasher.update(f"{len(ids)} {ids}\0".encode())
        present = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)]
        order = np.lexsort([getattr(self, name) for name in reversed(present)])
        for name in present:
            hasher.update(name.encode() + np.ascontiguousarray(getattr(self, name)[order]).tobytes())
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Train, valid and test over the same vocabularies, and the protocol that made them.

    Whatever learns or counts (vocabulary policy aside) sees ``train`` only. ``valid`` and ``test`` may be empty.
    """

    train: Interactions
    valid: Interactions
    test: Interactions
    protocol: Mapping[str, Any]
    """The split's configuration as plain values."""
    report: tuple[Mapping[str, Any], ...] = field(default=())
    """Row counts: one mapping per step, with keys ``step``, ``rows``, ``users``, ``items`` (after it), ``dropped``
    (rows lost in it) and ``note``. Before the cuts counts are over all parts."""

    def __post_init__(self) -> None:
        for part in (self.valid, self.test):
            assert part.users is self.train.users and part.items is self.train.items, "parts share vocabularies"

    @property
    def users(self) -> Vocab:
        return self.train.users

    @property
    def items(self) -> Vocab:
        return self.train.items

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        return self.train.behaviors

    def part(self, name: PartName) -> Interactions:
        """The part called ``name``."""
        part: Interactions = getattr(self, name)
        return part

    def with_valid_in_train(self) -> Split:
        """The split for the final fit: valid rows join train, and valid is empty. Test is untouched."""
        none = self.valid.take(np.zeros(len(self.valid), dtype=bool))
        return replace(self, train=concat(self.train, self.valid), valid=none)

    def digest(self) -> str:
        """SHA-256 of the three parts."""
        parts = (self.train.digest() + self.valid.digest() + self.test.digest()).encode()
        return hashlib.sha256(parts).hexdigest()


def sorted_distinct(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The distinct values of ``keys``, shape (n,), in order. By sorting: the hash table of ``np.unique`` is 8x slower
    on 10 million keys."""
    ordered = np.sort(keys)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=-1))]


def n_common(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> int:
    """How many values two arrays of ``sorted_distinct`` share."""
    few, many = sorted((a, b), key=len)
    place = np.searchsorted(many, few)
    inside = place < len(many)
    return int((many[place[inside]] == few[inside]).sum())


def concat(*parts: Interactions) -> Interactions:
    """The rows of all parts, one after the other, over their one pair of vocabularies.

    A part without weights has weight 1; times and labels are kept if all parts have them.
    """
    assert all(part.users is parts[0].users and part.items is parts[0].items for part in parts)
    columns: dict[str, Any] = {}
    for name in ("user", "item", "behavior", "time", "weight", "label"):
        values = [getattr(part, name) for part in parts]
        if name == "weight" and any(value is not None for value in values):
            values = [np.ones(len(p), np.float32) if v is None else v for p, v in zip(parts, values, strict=True)]
        columns[name] = None if any(value is None for value in values) else np.concatenate(values)
    return replace(parts[0], **columns)
