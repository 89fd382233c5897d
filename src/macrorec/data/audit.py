"""What could make a split's numbers wrong? Leaks, positives that no ranking can reach, odd times and labels.

"Positives" are the target events of a part whose label, if there is one, is above 0. Pairs are distinct (user, item).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.log import PARTS, Interactions, PartName, Split, concat, n_common

Severity = Literal["ok", "info", "warning", "error"]
UNREACHABLE_ERROR = 0.01
"""Share of unreachable positives from which the finding is an error: recall is capped below 0.99."""
EPOCH = 10**8
"""Times with at least this median are taken for moments since 1970, in a unit of s, ms, us or ns by magnitude."""
FAR_YEARS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and what it found."""

    name: str
    severity: Severity
    """``ok``: nothing found. ``info``: a fact to know. ``warning``: look at it. ``error``: numbers would mislead."""
    count: int
    share: float
    """``count`` over what it counts among, as the text says; 0 if there is nothing to count among."""
    text: str
    """One line."""


def audit(split: Split) -> tuple[Finding, ...]:
    """All findings on ``split``, in a fixed order; checks that do not apply (no times, no labels, an empty part) are
    left out."""
    held_out: list[PartName] = [name for name in PARTS[1:] if len(split.part(name))]
    findings = [*_overlaps(split)]
    for name in held_out:
        part = split.part(name)
        seen = split.train if name == "valid" else concat(split.train, split.valid)
        findings += [*_future(split.train, part, name), *_positives(seen, part, name), *_cold(split.train, part, name)]
    whole = concat(split.train, split.valid, split.test)
    findings += [*_duplicates(split), *_sparse(whole), *_times(whole), *_labels(split)]
    return tuple(findings)


def _finding(name: str, severity: Severity, count: int, total: int, text: str) -> Finding:
    """A finding of ``count`` among ``total``; the text goes on after "count of total (share)"."""
    share = count / total if total else 0.0
    line = f"{count:,} of {total:,} ({100 * share:.1f} %) {text}"
    return Finding(name, severity if count else "ok", count, share, line)


def _positive(part: Interactions) -> Interactions:
    target = part.of("target")
    return target if target.label is None else target.take(target.label > 0)


def _overlaps(split: Split) -> Iterator[Finding]:
    target: dict[str, npt.NDArray[np.int64]] = {name: split.part(name).of("target").pairs() for name in PARTS}
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        if len(target[second]) and len(target[first]):
            common = n_common(target[first], target[second])
            text = f"target pairs of {second} also stand in {first}"
            yield _finding(f"overlap-{first}-{second}", "warning", common, len(target[second]), text)


def _future(train: Interactions, part: Interactions, name: str) -> Iterator[Finding]:
    """Train events strictly later than the earliest held-out target event, of the same user and of anybody."""
    target = part.of("target")
    if train.time is None or target.time is None or not len(target):
        return
    earliest_U = np.full(len(train.users), np.iinfo(np.int64).max)
    np.minimum.at(earliest_U, target.user, target.time)
    later = int((train.time > earliest_U[train.user]).sum())
    text = f"train events are later than their own user's earliest event in {name}"
    yield _finding(f"future-user-{name}", "warning", later, len(train), text)
    later = int((train.time > target.time.min()).sum())
    text = f"train events are later than the earliest event in {name}"
    yield _finding(f"future-{name}", "warning", later, len(train), text)


def _positives(seen: Interactions, part: Interactions, name: str) -> Iterator[Finding]:
    """Held-out positives that the mask hides, and those that the user has met in another behaviour before."""
    positives = _positive(part).pairs()
    if not len(positives):
        return
    masks = np.array([b.mask for b in seen.behaviors])
    hidden = n_common(positives, seen.take(masks[seen.behavior]).pairs())
    severity: Severity = "error" if hidden >= UNREACHABLE_ERROR * len(positives) else "warning"
    text = f"positives of {name} are masked: the user has the item in a masking behaviour before {name}"
    yield _finding(f"unreachable-{name}", severity, hidden, len(positives), text)
    auxiliary = [number for number, b in enumerate(seen.behaviors) if b.role == "auxiliary"]
    for number in auxiliary:
        known = n_common(positives, seen.take(seen.behavior == number).pairs())
        behavior = seen.behaviors[number].name
        text = f"positives of {name} are already in the user's {behavior!r} events"
        yield _finding(f"re-engagement-{name}:{behavior}", "info", known, len(positives), text)
    if len(auxiliary) > 1:
        known = n_common(positives, seen.of("auxiliary").pairs())
        text = f"positives of {name} are already in some auxiliary behaviour of the user"
        yield _finding(f"re-engagement-{name}", "info", known, len(positives), text)


def _cold(train: Interactions, part: Interactions, name: str) -> Iterator[Finding]:
    """Users and items of held-out target events that have no train event of any behaviour."""
    target = part.of("target")
    for noun, column in (("users", "user"), ("items", "item")):
        n_numbers = len(getattr(train, noun))
        held_out = np.bincount(getattr(target, column), minlength=n_numbers) > 0
        cold = held_out & (np.bincount(getattr(train, column), minlength=n_numbers) == 0)
        text = f"{noun} of {name} have no event in train"
        yield _finding(f"cold-{noun}-{name}", "warning", int(cold.sum()), int(held_out.sum()), text)


def _duplicates(split: Split) -> Iterator[Finding]:
    rows = pairs = total = 0
    for name in PARTS:
        part = split.part(name)
        key = (part.user.astype(np.int64) * len(part.items) + part.item) * len(part.behaviors) + part.behavior
        repeats = len(part) - pl.Series(key).n_unique()
        names = ("user", "item", "behavior", "time", "weight", "label")
        columns = {name: getattr(part, name) for name in names if getattr(part, name) is not None}
        rows += len(part) - pl.DataFrame(columns).n_unique() if repeats else 0
        pairs += repeats
        total += len(part)
    yield _finding("duplicate-rows", "warning", rows, total, "rows repeat another row of their part in every column")
    text = "rows repeat the user, item and behaviour of another row of their part"
    yield _finding("duplicate-pairs", "info", pairs, total, text)


def _sparse(whole: Interactions) -> Iterator[Finding]:
    events = np.bincount(whole.user, minlength=len(whole.users))
    text = "users have one event in the whole log"
    yield _finding("single-event-users", "info", int((events == 1).sum()), int((events > 0).sum()), text)


def _times(whole: Interactions) -> Iterator[Finding]:
    time = whole.time
    if time is None or not len(time):
        return
    yield _finding("time-not-positive", "warning", int((time <= 0).sum()), len(time), "times are zero or negative")
    equal = len(time) if len(time) > 1 and time.min() == time.max() else 0
    yield _finding("time-constant", "error", equal, len(time), "times are one and the same: they order nothing")
    median = float(np.median(time))
    if median < EPOCH:
        return
    positive = time[time > 0].astype(np.float64)
    thousands = np.rint(np.log10(positive / median) / 3)
    text = "times differ from the median by a factor of about 1000 or more: units may be mixed"
    yield _finding("time-mixed-units", "error", int((thousands != 0).sum()), len(time), text)
    unit = 1000.0 ** max(0, round((np.log10(median) - 9.2) / 3))
    far = (positive - median > FAR_YEARS * 365.25 * 86400 * unit) & (thousands == 0)
    text = f"times are more than {FAR_YEARS} years later than the median"
    yield _finding("time-far-future", "warning", int(far.sum()), len(time), text)


def _labels(split: Split) -> Iterator[Finding]:
    for name in PARTS:
        part = split.part(name).of("target")
        if part.label is None or not len(part):
            continue
        graded = int(((part.label != 0) & (part.label != 1)).sum())
        text = f"labels of {name} are neither 0 nor 1: they are grades, not clicks"
        yield _finding(f"label-graded-{name}", "info", graded, len(part), text)
        one = len(part) if part.label.min() == part.label.max() else 0
        text = f"labels of {name} are one and the same: there is nothing to tell apart"
        yield _finding(f"label-one-class-{name}", "warning", one, len(part), text)
        if not graded and name != "train":
            rows = np.bincount(part.user, minlength=len(part.users))
            ones = np.bincount(part.user, weights=part.label, minlength=len(part.users))
            lone = int(((rows > 0) & ((ones == 0) | (ones == rows))).sum())
            text = f"users of {name} have labels of one class only: GAUC leaves them out"
            yield _finding(f"label-one-class-users-{name}", "info", lone, int((rows > 0).sum()), text)
