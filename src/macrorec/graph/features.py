"""What did a ranker know before each impression? Samples whose features see nothing of their own future.

Shape letters: H events of the history, S impressions of all parts, B those of one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from macrorec.data.log import PARTS, Interactions, PartName, Split
from macrorec.errors import ConfigError, DataError
from macrorec.graph.assignment import Fitted, fit_items, fit_users, joined
from macrorec.graph.bipartite import Graph
from macrorec.graph.groups import ByCategory, ByKMeans, Grouping, Groups
from macrorec.graph.impressions import Ties, Timeline, timeline
from macrorec.graph.macro import Features, MacroGraph

if TYPE_CHECKING:
    from macrorec.data.catalog import Catalog

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TRAIN, VALID, TEST = range(len(PARTS))


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
        for name, allowed in (("kind", ("snapshot", "as_of")), ("cold", ("keep", "drop")), ("ties", get_args(Ties))):
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
class Samples:
    """Labelled impressions with their features, in order of time, then of the rows that they come from."""

    features: Features
    label_B: Tensor
    """In [0, 1], float32."""
    pairs: Interactions
    """The rows themselves: ids, labels, times."""
    user_history_B: Ints
    """Events of the user's history that the features were made from; 0: the user is cold."""
    item_history_B: Ints
    """The same of the item."""

    def __len__(self) -> int:
        return len(self.label_B)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """The samples of a split, and what a model that is fitted on them scores from."""

    macro: MacroGraph
    """The state after all events of train."""
    samples: Mapping[PartName, Samples]
    report: Mapping[str, Any]
    """Plain values: the boundary, the groups with their objective (4), and per part what was kept and dropped."""


def feature_set(split: Split, config: FeatureConfig, catalog: Catalog | None, *, seed: int) -> FeatureSet:
    """Samples of every part of ``split``; k-means and drawn negatives depend on ``seed``.

    Raises DataError for a log that gives no samples (see ``timeline``), for train samples that are all cold or of one
    class, for categories without a catalog, for more groups than nodes with history, and for a snapshot of a split
    that is not by time; ConfigError for settings that do not fit the log.
    """
    plan = _plan(split, config, catalog, seed)
    line, groups = plan.line, (plan.users.groups, plan.items.groups)
    if config.kind == "snapshot":
        live = MacroGraph(*groups, *line.events(slice(line.n_first)), recents=config.recents)
        samples = {name: plan.samples(line.part_S == PARTS.index(name), live) for name in PARTS[:TEST]}
        live = _state(line, _known_to_test(line), groups, config)
        samples["test"] = plan.samples(line.part_S == TEST, live)
        del live
    else:
        joins: list[tuple[int, Groups, Groups]] = []
        samples = _assembled(plan, joins)
        n_train = int(np.argmax(np.append(line.part_H != TRAIN, True)))
        groups = next(((users, items) for at, users, items in reversed(joins) if at <= n_train), groups)
    macro = _state(line, line.part_H == TRAIN, groups, config)
    return FeatureSet(macro, samples, plan.report)


def stream(
    split: Split, config: FeatureConfig, catalog: Catalog | None, *, seed: int, at_once: int = 1 << 14
) -> Iterator[tuple[PartName, Samples]]:
    """The samples of kind ``as_of``, in order of time, at most ``at_once`` with their part; errors as above.

    What is held is the log, the state, and one chunk: features of all samples never stand in memory together.
    """
    plan = _plan(split, replace(config, kind="as_of"), catalog, seed)
    for rows, features in _replayed(plan, at_once, []):
        for part, name in enumerate(PARTS):
            own = np.flatnonzero(plan.line.part_S[rows] == part)
            if len(own):
                chosen = features if len(own) == len(features) else features.take(torch.from_numpy(own))
                yield name, plan.with_features(rows.start + own, chosen)


def macro_of(graph: Graph, n_groups: int = 20) -> MacroGraph:
    """The macro graph of a graph that came without one: node numbers modulo ``n_groups`` as groups."""
    users = Groups(np.arange(graph.n_users, dtype=np.int32) % n_groups, n_groups)
    items = Groups(np.arange(graph.n_items, dtype=np.int32) % n_groups, n_groups)
    target = graph.target
    return MacroGraph(users, items, target.user_E.numpy(), target.item_E.numpy(), target.weight_E.numpy())


def samples_at(macro: MacroGraph, pairs: Interactions) -> Samples:
    """Samples of labelled ``pairs`` that all see the macro graph as it is now."""
    assert pairs.label is not None
    seen = macro.user_events(pairs.user), macro.item_events(pairs.item)
    return Samples(macro.features(pairs.user, pairs.item), torch.from_numpy(pairs.label), pairs, *seen)


# --- what both kinds share -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """All that is decided before the first feature is counted."""

    config: FeatureConfig
    line: Timeline
    """Without the impressions that are dropped."""
    users: Fitted
    items: Fitted
    user_history_S: Ints
    item_history_S: Ints
    report: dict[str, Any]

    def samples(self, chosen_S: Mask, macro: MacroGraph) -> Samples:
        """The samples of some impressions that all see ``macro`` as it is now."""
        rows = np.flatnonzero(chosen_S)
        return self.with_features(rows, macro.features(self.line.rows.user[rows], self.line.rows.item[rows]))

    def with_features(self, rows: Ints, features: Features) -> Samples:
        """The impressions ``rows``, whose features these are."""
        pairs = self.line.rows.take(rows)
        assert pairs.label is not None
        history = self.user_history_S[rows], self.item_history_S[rows]
        return Samples(features, torch.from_numpy(pairs.label), pairs, *history)


def _plan(split: Split, config: FeatureConfig, catalog: Catalog | None, seed: int) -> _Plan:
    line = timeline(split, config.history, ties=config.ties, negatives=config.negatives, seed=seed)
    events = line.events(slice(line.n_first))[:3]
    items = fit_items(config.items, line.rows.items, catalog, *events, len(line.rows.users), seed=seed)
    users = fit_users(config.users, line.rows.users, items.groups, *events, seed=seed)
    if config.kind == "snapshot":
        known_H = _known_to_test(line)
        history = _counted(line, known_H, "user"), _counted(line, known_H, "item")
    else:
        history = (
            _counted_before(line.user_H, line.rows.user, line.before_S, len(line.rows.users)),
            _counted_before(line.item_H, line.rows.item, line.before_S, len(line.rows.items)),
        )
    keep_S = (history[0] > 0) & (history[1] > 0) if config.cold == "drop" else np.ones(len(line.rows), dtype=bool)
    report = _report(config, line, users, items, history, keep_S)
    _check_train(line, keep_S)
    if not keep_S.all():
        line, history = line.keep(keep_S), (history[0][keep_S], history[1][keep_S])
    return _Plan(config, line, users, items, history[0], history[1], report)


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


def _state(line: Timeline, chosen_H: Mask, groups: tuple[Groups, Groups], config: FeatureConfig) -> MacroGraph:
    """The state after some events, late nodes joined."""
    macro = MacroGraph(*groups, *line.events(chosen_H), recents=config.recents)
    _join(macro)
    return macro


def _join(macro: MacroGraph) -> bool:
    """Let late nodes join the nearest centre; whether any did."""
    users, items = joined(macro)
    changed = users is not macro.users or items is not macro.items
    if changed:
        macro.regroup(users, items)
    return changed


def _report(
    config: FeatureConfig, line: Timeline, users: Fitted, items: Fitted, history: tuple[Ints, Ints], keep_S: Mask
) -> dict[str, Any]:
    label_S = line.rows.label
    assert label_S is not None
    parts = {}
    for part, name in enumerate(PARTS):
        own = line.part_S == part
        parts[name] = {
            "rows": line.n_rows[part],
            "samples": int(own.sum()),
            "cold_user": int((own & (history[0] == 0)).sum()),
            "cold_item": int((own & (history[1] == 0)).sum()),
            "cold": int((own & ((history[0] == 0) | (history[1] == 0))).sum()),
            "dropped": int((own & ~keep_S).sum()),
            "kept": int((own & keep_S).sum()),
            "positives": int((own & keep_S & (label_S > 0.5)).sum()),
        }
    sees = "the moment before each sample, in valid and test too (prequential)"
    return {
        "kind": config.kind,
        "sees": sees if config.kind == "as_of" else "train and valid: the boundary; test: the end of valid",
        "boundary": line.boundary,
        "history": line.n_first,
        "groups": {
            side: {"n": f.groups.n, "unknown": f.groups.unknown, "objective": f.objective}
            for side, f in (("users", users), ("items", items))
        },
        "parts": parts,
    }


# --- snapshot --------------------------------------------------------------------------------------------------------


def _known_to_test(line: Timeline) -> Mask:
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


def _counted(line: Timeline, known_H: Mask, side: Literal["user", "item"]) -> Ints:
    """Events (S,) of each impression's user or item that its state holds."""
    node_H, node_S = (line.user_H, line.rows.user) if side == "user" else (line.item_H, line.rows.item)
    n = len(line.rows.users if side == "user" else line.rows.items)
    first, known = (np.bincount(node_H[chosen], minlength=n) for chosen in (slice(line.n_first), known_H))
    counted: Ints = np.where(line.part_S == TEST, known[node_S], first[node_S])
    return counted


# --- as of each moment -----------------------------------------------------------------------------------------------


def _replayed(plan: _Plan, at_once: int, joins: list[tuple[int, Groups, Groups]]) -> Iterator[tuple[slice, Features]]:
    """Features of at most ``at_once`` impressions at a time; to ``joins`` comes who joined after how many events."""
    line, config = plan.line, plan.config
    live = MacroGraph(plan.users.groups, plan.items.groups, *line.events(slice(line.n_first)), recents=config.recents)
    done_H, done_S = line.n_first, 0
    for stop_H in [*_regroupings(line, config), None]:
        stop_S = len(line.rows) if stop_H is None else int(line.before_S.searchsorted(stop_H))
        while done_S < stop_S:
            rows = slice(done_S, min(done_S + at_once, stop_S))
            upto_H = int(line.before_S[rows.stop - 1])
            yield (
                rows,
                live.replay(
                    *line.events(slice(done_H, upto_H)),
                    line.rows.user[rows],
                    line.rows.item[rows],
                    line.before_S[rows] - done_H,
                ),
            )
            done_H, done_S = upto_H, rows.stop
        if stop_H is not None:
            live.add(*line.events(slice(done_H, stop_H)))
            done_H = stop_H
            if _join(live):
                joins.append((stop_H, live.users, live.items))


def _regroupings(line: Timeline, config: FeatureConfig) -> list[int]:
    """After how many events late nodes join: up to the last impression, at distances that the history decides."""
    if not config.regroup or not len(line.rows):
        return []
    step = max(1, round(line.n_first * (1 - config.history) / config.history / config.regroup))
    return list(range(line.n_first + step, int(line.before_S[-1]) + 1, step))


def _assembled(plan: _Plan, joins: list[tuple[int, Groups, Groups]]) -> dict[PartName, Samples]:
    """All samples of kind ``as_of``."""
    rows_of = [np.flatnonzero(plan.line.part_S == part) for part in range(len(PARTS))]
    whole: list[dict[str, Tensor]] = []
    filled = [0] * len(PARTS)
    for rows, chunk in _replayed(plan, 1 << 16, joins):
        columns = {f.name: getattr(chunk, f.name) for f in fields(Features)}
        if not whole:
            whole = [{n: c.new_empty((len(own), *c.shape[1:])) for n, c in columns.items()} for own in rows_of]
        part_B = plan.line.part_S[rows]
        for part, out in enumerate(whole):
            own = torch.from_numpy(np.flatnonzero(part_B == part))
            place = slice(filled[part], filled[part] + len(own))
            for name, column in columns.items():
                out[name][place] = column if len(own) == len(column) else column[own]
            filled[part] = place.stop
    return {
        name: plan.with_features(own, Features(**columns))
        for name, own, columns in zip(PARTS, rows_of, whole, strict=True)
    }


@njit(cache=True, nogil=True)
def _counted_before(node_H, node_S, before_S, n_nodes):  # type: ignore[no-untyped-def]
    """How many of the first before_S[s] events are of node_S[s], shape (S,); before_S never falls."""
    counts_N = np.zeros(n_nodes, dtype=np.int64)
    counted_S = np.empty(len(node_S), dtype=np.int64)
    done = 0
    for s in range(len(node_S)):
        for h in range(done, before_S[s]):
            counts_N[node_H[h]] += 1
        done = before_S[s]
        counted_S[s] = counts_N[node_S[s]]
    return counted_S
