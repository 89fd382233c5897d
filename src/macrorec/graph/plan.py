"""What is decided before the first feature is counted? Which impressions stay, what each may see, by which groups.

Shape letters: H events of the history, S impressions of all parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from macrorec.data.log import PARTS, Split
from macrorec.errors import ConfigError, DataError
from macrorec.graph.assignment import Fitted, fit_items, fit_users
from macrorec.graph.groups import ByCategory, ByKMeans, Grouping
from macrorec.graph.impressions import Ties, Timeline, timeline

if TYPE_CHECKING:
    from macrorec.data.catalog import Catalog

Numbers = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TRAIN, VALID, TEST = range(len(PARTS))
SEES = {
    "snapshot": "train and valid: the events up to the boundary; test: those of train and valid",
    "as_of": "all that is earlier than the sample itself, earlier positives of valid and test included (prequential)",
}
"""What the samples of each kind see, for the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig:
    """What counts as history of an impression, and by which groups it is counted."""

    kind: Literal["snapshot", "as_of"] = "snapshot"
    """``snapshot``, the paper's: train and valid see the state at the boundary, test the state at the end of valid.
    ``as_of``: every impression, those of valid and test too, sees the state of the moment before it, in which earlier
    positives of its own part count (prequential evaluation): what a live server would have known."""
    history: float = 0.8
    """Share of the target events, by time, that serve as history only; groups are fitted on it."""
    users: Grouping = field(default_factory=ByKMeans)
    """Where the groups of users come from."""
    items: Grouping = field(default_factory=ByCategory)
    """Where the groups of items come from."""
    edges: Literal["positive", "signed"] = "positive"
    """Which events of the target behaviour are macro edges. ``positive``, the paper's: those of label above .5.
    ``signed``, ours: all labelled ones, as two types with rows of their own; see ``TypedMacroGraph``."""
    recents: int = 20
    """Latest items of a user, and latest users of an item, that are known one by one; 20 in the authors' code."""
    cold: Literal["keep", "drop"] = "keep"
    """Whether to drop impressions whose user or item has no history, as the authors' protocol does."""
    ties: Ties = "apart"
    """``as_of``: whether an event of the same time as an impression is unseen, or seen if its row is earlier."""
    regroup: int = 20
    """``as_of``: about how often, at even distances, users and items without a group but with history join the
    nearest centre. The distance is (1 - history) / history / regroup of the events in the history, so that it depends
    on nothing yet to come. 0: never."""
    negatives: int = 0
    """For logs without labels: items drawn per positive, as impressions of label 0."""

    def __post_init__(self) -> None:
        choices = {"kind": ("snapshot", "as_of"), "edges": ("positive", "signed"), "cold": ("keep", "drop")}
        for name, allowed in (*choices.items(), ("ties", get_args(Ties))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"features.{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        if not 0 < self.history < 1:
            raise ConfigError(f"features.history is {self.history:g}; it must lie between 0 and 1")
        for name in ("recents", "regroup", "negatives"):
            if getattr(self, name) < 0:
                raise ConfigError(f"features.{name} is {getattr(self, name)}; it must be 0 or more")
        if isinstance(self.users, ByCategory):
            raise ConfigError("features.users is 'category', but only items have categories: use 'kmeans' or 'file'")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that is decided before the first feature is counted."""

    config: FeatureConfig
    line: Timeline
    """Without the impressions that are dropped."""
    users: Fitted
    items: Fitted
    user_history_S: Ints
    item_history_S: Ints
    report: Mapping[str, Any]
    """As in ``FeatureSet``."""


def plan(split: Split, config: FeatureConfig, catalog: Catalog | None, *, seed: int) -> Plan:
    """What ``split`` gives under ``config``; errors as ``feature_set`` says."""
    signed = config.edges == "signed"
    if signed and split.train.label is None:
        raise ConfigError("features.edges is 'signed', but the log has no labels: set it to 'positive'")
    line = timeline(split, config.history, ties=config.ties, negatives=config.negatives, signed=signed, seed=seed)
    liked = line.positives()
    user_E, item_E, weight_E, *_ = liked.events(slice(liked.n_first))
    events = user_E, item_E, weight_E
    n_users, until = len(line.rows.users), line.boundary
    items = fit_items(config.items, line.rows.items, catalog, *events, n_users, seed=seed, until=until)
    users = fit_users(config.users, line.rows.users, items.groups, *events, seed=seed, until=until)
    sides = (liked.user_H, line.rows.user, len(line.rows.users)), (liked.item_H, line.rows.item, len(line.rows.items))
    if config.kind == "snapshot":
        known_H = known_to_test(liked)
        user_S, item_S = (_counted(liked, known_H, *side) for side in sides)
    else:
        from macrorec.graph.counting import counted_before

        user_S, item_S = (counted_before(node_H, node_S, liked.before_S, n) for node_H, node_S, n in sides)
    keep_S = (user_S > 0) & (item_S > 0) if config.cold == "drop" else np.ones(len(line.rows), dtype=bool)
    _check_train(line, keep_S)
    report = _report(config, line, users, items, user_S, item_S, keep_S)
    if not keep_S.all():
        line, user_S, item_S = line.keep(keep_S), user_S[keep_S], item_S[keep_S]
    return Plan(config, line, users, items, user_S, item_S, report)


def _check_train(line: Timeline, keep_S: Mask) -> None:
    """Raise DataError unless there are train impressions of both classes."""
    train_S = line.part_S == TRAIN
    if not train_S.any():
        raise DataError(
            f"no train sample is later than {line.boundary}, where the history ends: lower features.history, or hold "
            "out less"
        )
    assert line.rows.label is not None
    label_B = line.rows.label[train_S & keep_S]
    if not len(label_B):
        raise DataError(
            f"all {train_S.sum():,} train samples are cold: keep them (features.cold), or lower features.history"
        )
    if (label_B > 0.5).all() or (label_B <= 0.5).all():
        raise DataError(f"all {len(label_B):,} train samples have label {label_B[0]:g}: there is nothing to tell apart")


def _report(
    config: FeatureConfig, line: Timeline, users: Fitted, items: Fitted, user_S: Ints, item_S: Ints, keep_S: Mask
) -> dict[str, Any]:
    assert line.rows.label is not None
    positive_S = line.rows.label > 0.5
    counts = {
        "samples": np.ones(len(keep_S), dtype=bool),
        "cold_user": user_S == 0,
        "cold_item": item_S == 0,
        "cold": (user_S == 0) | (item_S == 0),
        "dropped": ~keep_S,
        "kept": keep_S,
        "positives": keep_S & positive_S,
    }
    per_part = {name: np.bincount(line.part_S[mask_S], minlength=len(PARTS)) for name, mask_S in counts.items()}
    return {
        "kind": config.kind,
        "edges": config.edges,
        "sees": SEES[config.kind],
        "boundary": line.boundary,
        "history": line.n_first,
        "groups": {
            side: {"n": fitted.groups.n, "unknown": fitted.groups.unknown, "objective": fitted.objective}
            for side, fitted in (("users", users), ("items", items))
        },
        "parts": {
            name: {"rows": line.n_rows[part], **{what: int(n[part]) for what, n in per_part.items()}}
            for part, name in enumerate(PARTS)
        },
    }


def known_to_test(line: Timeline) -> Mask:
    """The events (H,) of train and valid. Raises DataError if one is not earlier than every test impression."""
    known_H: Mask = line.part_H != TEST
    times = line.rows.time
    assert times is not None
    test_S, last = line.part_S == TEST, int(line.time_H[known_H].max(initial=line.boundary))
    if test_S.any() and (first := int(times[test_S].min())) <= last:
        raise DataError(
            f"a snapshot needs a test part later than train and valid, and test begins at {first}, while these end at "
            f"{last}: split by time, or set features.kind to 'as_of'"
        )
    known_H[: line.n_first] = True
    return known_H


def _counted(line: Timeline, known_H: Mask, node_H: Numbers, node_S: Numbers, n_nodes: int) -> Ints:
    """Events of each impression's node that a snapshot holds, shape (S,)."""
    first, known = (np.bincount(node_H[chosen], minlength=n_nodes) for chosen in (slice(line.n_first), known_H))
    counted: Ints = np.where(line.part_S == TEST, known[node_S], first[node_S])
    return counted
