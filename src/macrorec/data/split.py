"""How does a prepared log become train, valid and test without leakage?

First the test cut, then the valid cut on what remains, then the k-core of train, then the vocabulary policy. Cuts hold
out rows of the target behaviour; a time quantile takes all behaviours, and its other rows stay in their part, where
rankings do not count them. In a log with repeated events (dedupe ``none``) a held-out pair may also stand in train:
``audit`` counts such pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from macrorec.data.cuts import (
    Cut,
    Given,
    LeaveLastOne,
    LeaveOneOut,
    Nothing,
    RandomFraction,
    TimeQuantile,
    take,
)
from macrorec.data.kcore import k_core
from macrorec.data.log import Interactions, Split
from macrorec.data.prepare import Prepared
from macrorec.errors import ConfigError, DataError

__all__ = [
    "Cut",
    "Given",
    "LeaveLastOne",
    "LeaveOneOut",
    "Nothing",
    "RandomFraction",
    "SplitConfig",
    "TimeQuantile",
    "split",
]

Policy = Literal["train", "train+valid", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """What is held out, and which ids the parts may hold."""

    test: Cut
    """Rows to measure on, taken first."""
    valid: Cut = field(default_factory=Nothing)
    """Rows to choose by, taken from what the test cut leaves."""
    vocabulary: Policy = "train"
    """Ids that stay: those of train (in any behaviour), of train and valid (for a final fit on both), or all. Rows of
    valid and test with another user or item are dropped, and counted in the report."""
    train_core: int = 0
    """k of a k-core on the target behaviour of train, after the cuts. 0: off."""

    def __post_init__(self) -> None:
        if self.vocabulary not in get_args(Policy):
            raise ConfigError(f"vocabulary is {self.vocabulary!r}; allowed are {', '.join(get_args(Policy))}")
        if self.train_core < 0:
            raise ConfigError(f"train_core is {self.train_core}; it must be 0 (off) or more")


def split(prepared: Prepared, config: SplitConfig, *, seed: int) -> Split:
    """Train, valid and test of a prepared log; random cuts draw from ``seed``.

    Raises DataError for a cut without the times or the part that it needs, for a train part without target events,
    and for a cut that takes no target events, or whose events all have ids outside the vocabulary.
    """
    train = prepared.train
    _require(train, "train", "the prepared log has none")
    parts = {name: prepared.parts.get(name, train.take(np.arange(0))) for name in ("valid", "test")}
    report = list(prepared.report)
    for stream, (name, cut) in enumerate((("test", config.test), ("valid", config.valid))):
        note, dropped = "", 0
        if name in prepared.parts and not isinstance(cut, Given):
            raise ConfigError(f"a {name} part is given, but the {name} cut is {cut.kind!r}; it must be 'given'")
        if isinstance(cut, Nothing):
            continue
        if isinstance(cut, Given):
            if name not in prepared.parts:
                raise DataError(f"the {name} cut is 'given', but there is no {name} part")
        else:
            taken = take(cut, train, [seed, stream])
            into_part = taken.held_E if name == "test" else taken.held_E | taken.later_E
            out_of_train = taken.held_E | taken.later_E
            dropped = int(out_of_train.sum() - into_part.sum())
            note = taken.note
            parts[name], train = train.take(into_part), train.take(~out_of_train)
        _require(parts[name], name, f"the cut {cut.kind!r} takes none" + (f" ({note})" if note else ""))
        _require(train, "train", f"the {name} cut {cut.kind!r} leaves none")
        report.append(_counts(f"{name}: {cut.kind}", (train, *parts.values()), dropped, note))

    if config.train_core:
        n_before = len(train)
        train = _cored(train, config.train_core)
        _require(train, "train", f"nothing has a {config.train_core}-core")
        step = f"train: {config.train_core}-core"
        report.append(_counts(step, (train, *parts.values()), n_before - len(train), f"on {_target(train)!r}"))

    fitted = (train,) if config.vocabulary == "train" else (train, parts["valid"])
    if config.vocabulary != "all":
        before = {name: len(part) for name, part in parts.items()}
        train, parts["valid"], parts["test"] = _restrict(fitted, (train, parts["valid"], parts["test"]))
        lost = {name: before[name] - len(part) for name, part in parts.items()}
        note = ", ".join(f"{n} rows of {name}" for name, n in lost.items() if n)
        step = f"vocabulary: {config.vocabulary}"
        report.append(_counts(step, (train, *parts.values()), sum(lost.values()), note))
        for name, rows in before.items():
            if rows:
                _require(
                    parts[name],
                    name,
                    f"all of them have a user or item outside the vocabulary of {config.vocabulary!r}",
                )
    report += [_counts(name, (part,), 0, "") for name, part in {"train": train, **parts}.items()]
    return Split(
        train=train,
        valid=parts["valid"],
        test=parts["test"],
        protocol={**asdict(config), "seed": seed},
        report=tuple(report),
    )


def _restrict(fitted: Sequence[Interactions], parts: Sequence[Interactions]) -> list[Interactions]:
    """``parts`` over the ids of ``fitted``, without the rows that have another."""
    users, items = parts[0].users, parts[0].items
    keep_user, keep_item = _present(fitted, "user"), _present(fitted, "item")
    if keep_user.all() and keep_item.all():
        return list(parts)
    users, new_user = users.subset(keep_user)
    items, new_item = items.subset(keep_item)
    restricted = []
    for part in parts:
        known = part.take(keep_user[part.user] & keep_item[part.item])
        user, item = new_user[known.user].astype(np.int32), new_item[known.item].astype(np.int32)
        restricted.append(replace(known, users=users, items=items, user=user, item=item))
    return restricted


def _present(parts: Sequence[Interactions], side: Literal["user", "item"]) -> npt.NDArray[np.bool_]:
    """Which users (U,) or items (I,) have a row in ``parts``."""
    present = np.zeros(len(parts[0].users if side == "user" else parts[0].items), dtype=bool)
    for part in parts:
        present[getattr(part, side)] = True
    return present


def _cored(train: Interactions, k: int) -> Interactions:
    target = train.of("target")
    keep_user, keep_item = k_core(target.user, target.item, len(train.users), len(train.items), k)
    return train.take(keep_user[train.user] & keep_item[train.item])


def _target(log: Interactions) -> str:
    return log.behaviors[log.target].name


def _require(part: Interactions, name: str, why: str) -> None:
    """Raise DataError if the part has no target event."""
    if not (part.behavior == part.target).any():
        raise DataError(f"the split leaves {name} without {_target(part)!r} events: {why}")


def _counts(step: str, parts: Sequence[Interactions], dropped: int, note: str) -> dict[str, Any]:
    return {
        "step": step,
        "rows": sum(len(part) for part in parts),
        "users": int(_present(parts, "user").sum()),
        "items": int(_present(parts, "item").sum()),
        "dropped": dropped,
        "note": note,
    }
