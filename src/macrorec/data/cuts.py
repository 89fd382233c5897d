"""Which rows of a log are held out? One frozen dataclass per rule, and the rows that it takes.

Random rules do not depend on the order of rows: they draw over the target rows sorted by content.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Discriminator

from macrorec.data.log import Interactions
from macrorec.errors import ConfigError, DataError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveLastOne:
    """Each user's last target event by (time, original row). Needs times."""

    kind: Literal["leave-last-one"] = "leave-last-one"
    at_least: int = 2
    """Users with fewer target events keep all of them in train."""
    drop_later: bool = False
    """Whether the user's events of other behaviours after the held-out one leave train too. The test cut drops them;
    the valid cut moves them into valid, so that the final fit on train and valid has them."""

    def __post_init__(self) -> None:
        _check_at_least(self.at_least)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveOneOut:
    """One target event of each user, at random."""

    kind: Literal["leave-one-out"] = "leave-one-out"
    at_least: int = 2
    """Users with fewer target events keep all of them in train."""

    def __post_init__(self) -> None:
        _check_at_least(self.at_least)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomFraction:
    """A share of the target events, at random."""

    fraction: float
    """Share held out, in (0, 1), rounded half up to whole events."""
    kind: Literal["random-fraction"] = "random-fraction"
    per_user: bool = True
    """Whether the share is of each user's events, of which at least one stays in train, or of all events."""
    users: float = 1.0
    """Share of the users, drawn at random, of whom anything is held out; all others stay whole. With ``per_user``."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ConfigError(f"fraction is {self.fraction}; it must lie between 0 and 1")
        if not 0 < self.users <= 1:
            raise ConfigError(f"users is {self.users}; it must be above 0 and at most 1")
        if self.users < 1 and not self.per_user:
            raise ConfigError("users is a share of those from each of whom events are held out: it needs per_user")


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeQuantile:
    """All events, of every behaviour, strictly later than a quantile of the target events' times. Needs times.

    Events of equal time stay together, so that no event in train is later than one held out.
    """

    quantile: float
    """In (0, 1): the least time that at least this share of the target events does not exceed."""
    kind: Literal["time-quantile"] = "time-quantile"

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile is {self.quantile}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """The rows that the user supplied as a part of their own."""

    kind: Literal["given"] = "given"


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """No rows."""

    kind: Literal["nothing"] = "nothing"


Cut = Annotated[
    LeaveLastOne | LeaveOneOut | RandomFraction | TimeQuantile | Given | Nothing,
    Discriminator("kind"),
]


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a rule takes from a log of E rows."""

    held_E: Mask
    """Rows held out."""
    later_E: Mask
    """Rows of other behaviours that must not stay in train either."""
    note: str = ""
    """One phrase for the report; where nothing is held out, why."""


def take(cut: LeaveLastOne | LeaveOneOut | RandomFraction | TimeQuantile, log: Interactions, seed: list[int]) -> Taken:
    """The rows of ``log`` that ``cut`` takes. Raises DataError where it needs times and there are none."""
    match cut:
        case LeaveLastOne():
            return _last(cut, log)
        case TimeQuantile():
            return _after_quantile(cut, log)
        case LeaveOneOut():
            count = np.bincount(_target_users(log), minlength=len(log.users))
            note = f"one at random of each user with {cut.at_least} or more"
            return _at_random(log, (count >= cut.at_least).astype(np.int64), seed, note)
        case RandomFraction(per_user=True):
            count = np.bincount(_target_users(log), minlength=len(log.users))
            quota = np.minimum(_half_up(count * cut.fraction), np.maximum(count - 1, 0))
            note = f"{cut.fraction:g} of each user's events"
            if cut.users < 1:
                known = np.flatnonzero(count)
                n = int(_half_up(len(known) * cut.users))
                drawn = _generator([*seed, 1]).choice(known, n, replace=False)
                quota *= np.isin(np.arange(len(count)), drawn)
                note += f", of {n} users"
            return _at_random(log, quota.astype(np.int64), seed, note)
        case RandomFraction():
            order = _content_order(log)
            n = min(int(_half_up(len(order) * cut.fraction)), max(len(order) - 1, 0))
            chosen = _generator(seed).choice(len(order), n, replace=False, shuffle=False)
            return Taken(_mask(log, order[chosen]), _mask(log, order[:0]), f"{cut.fraction:g} of all events")


def _last(cut: LeaveLastOne, log: Interactions) -> Taken:
    time = _times(cut.kind, log)
    rows = np.flatnonzero(log.behavior == log.target)
    rows = rows[np.lexsort((time[rows], log.user[rows]))]  # stable: equal times stay in canonical order
    user = log.user[rows]
    last = np.flatnonzero(np.append(user[1:] != user[:-1], True)) if len(rows) else rows
    size = np.diff(last, prepend=-1)
    held = rows[last[size >= cut.at_least]]
    later = np.zeros(len(log), dtype=bool)
    if cut.drop_later:
        row_of_user = np.full(len(log.users), -1)
        row_of_user[log.user[held]] = held
        held_row = row_of_user[log.user]
        held_time = time[held_row]
        after = (time > held_time) | ((time == held_time) & (np.arange(len(log)) > held_row))
        later = after & (held_row >= 0) & (log.behavior != log.target)
    return Taken(_mask(log, held), later, f"the last of each user with {cut.at_least} or more")


def _after_quantile(cut: TimeQuantile, log: Interactions) -> Taken:
    time = _times(cut.kind, log)
    target = np.sort(time[log.behavior == log.target])
    boundary = target[max(math.ceil(cut.quantile * len(target) - 1e-9) - 1, 0)]
    return Taken(time > boundary, np.zeros(len(log), dtype=bool), f"events after time {boundary}")


def _at_random(log: Interactions, quota_U: npt.NDArray[np.int64], seed: list[int], note: str) -> Taken:
    """``quota_U[u]`` target rows of each user u."""
    order = _content_order(log)
    user = log.user[order]
    key = _generator(seed).random(len(order))
    shuffled = np.lexsort((key, user))
    count = np.bincount(user, minlength=len(quota_U))
    place = np.arange(len(order)) - (np.cumsum(count) - count)[user]
    return Taken(_mask(log, order[shuffled[place < quota_U[user]]]), _mask(log, order[:0]), note)


def _content_order(log: Interactions) -> npt.NDArray[np.int64]:
    """Target rows sorted by user, item, time, weight, label: the same for every order of the input."""
    rows = np.flatnonzero(log.behavior == log.target)
    names = [name for name in ("user", "item", "time", "weight", "label") if getattr(log, name) is not None]
    frame = pl.DataFrame({name: getattr(log, name)[rows] for name in names})
    order: npt.NDArray[np.int64] = rows[frame.select(pl.arg_sort_by(names)).to_series().to_numpy()]
    return order


def _half_up(number: Any) -> Any:
    """Rounded half up, also where a product falls short of the half by a rounding error; a number or an array."""
    return np.floor(number + 0.5 + 1e-9)


def _generator(seed: list[int]) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def _target_users(log: Interactions) -> npt.NDArray[np.int32]:
    users: npt.NDArray[np.int32] = log.user[log.behavior == log.target]
    return users


def _times(kind: str, log: Interactions) -> npt.NDArray[np.int64]:
    if log.time is None:
        raise DataError(f"the cut {kind!r} needs times, and the log has no column 'timestamp'")
    return log.time


def _mask(log: Interactions, rows: npt.NDArray[Any]) -> Mask:
    mask = np.zeros(len(log), dtype=bool)
    mask[rows] = True
    return mask


def _check_at_least(at_least: int) -> None:
    if at_least < 1:
        raise ConfigError(f"at_least is {at_least}; it must be 1 or more")
