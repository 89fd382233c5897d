"""What did a ranker know before each impression? Samples whose features see nothing of their own future.

Shape letters: H events of the history, S impressions of all parts, B those of one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.data.log import PARTS, Interactions, PartName, Split
from macrorec.graph.assignment import joined
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.graph.groups import Groups
from macrorec.graph.impressions import Timeline
from macrorec.graph.macro import MacroGraph
from macrorec.graph.plan import TEST, TRAIN, VALID, FeatureConfig, Plan, known_to_test, plan
from macrorec.graph.typed import AnyMacroGraph, TypedMacroGraph

if TYPE_CHECKING:
    from macrorec.data.catalog import Catalog

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SIGNS = ("positive", "negative")
"""Types of events with signed edges."""

__all__ = ["FeatureConfig", "FeatureSet", "Samples", "feature_set", "macro_of", "samples_at", "stream"]


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

    macro: AnyMacroGraph
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
    decided = plan(split, config, catalog, seed=seed)
    line, groups = decided.line, (decided.users.groups, decided.items.groups)
    samples: dict[PartName, Samples]
    if config.kind == "snapshot":
        live = _graph(line, slice(line.n_first), groups, config)
        samples = {"train": _seeing(decided, live, TRAIN), "valid": _seeing(decided, live, VALID)}
        live = _state(line, known_to_test(line), groups, config)
        samples["test"] = _seeing(decided, live, TEST)
        del live
    else:
        joins: list[tuple[int, Groups, Groups]] = []
        samples = _assembled(decided, joins)
        n_train = int(np.argmax(np.append(line.part_H != TRAIN, True)))
        groups = next(((users, items) for at, users, items in reversed(joins) if at <= n_train), groups)
    macro = _state(line, line.part_H == TRAIN, groups, config)
    return FeatureSet(macro, samples, decided.report)


def stream(
    split: Split, config: FeatureConfig, catalog: Catalog | None, *, seed: int, at_once: int = 1 << 14
) -> Iterator[tuple[PartName, Samples]]:
    """The samples of kind ``as_of``, in order of time, at most ``at_once`` with their part; errors as above.

    What is held is the log, the state, and one chunk: features of all samples never stand in memory together.
    """
    decided = plan(split, replace(config, kind="as_of"), catalog, seed=seed)
    for rows, features in _replayed(decided, at_once, []):
        for part, name in enumerate(PARTS):
            own = np.flatnonzero(decided.line.part_S[rows] == part)
            if len(own):
                chosen = features if len(own) == len(features) else features.take(torch.from_numpy(own))
                yield name, _samples(decided, rows.start + own, chosen)


def macro_of(graph: Graph, n_groups: int = 20) -> MacroGraph:
    """The macro graph of a graph that came without one: node numbers modulo ``n_groups`` as groups."""
    users = Groups(np.arange(graph.n_users, dtype=np.int32) % n_groups, n_groups)
    items = Groups(np.arange(graph.n_items, dtype=np.int32) % n_groups, n_groups)
    target = graph.target
    return MacroGraph(users, items, target.user_E.numpy(), target.item_E.numpy(), target.weight_E.numpy())


def samples_at(macro: AnyMacroGraph, pairs: Interactions) -> Samples:
    """Samples of labelled ``pairs`` that all see the macro graph as it is now."""
    assert pairs.label is not None
    seen = macro.user_events(pairs.user), macro.item_events(pairs.item)
    return Samples(macro.features(pairs.user, pairs.item), torch.from_numpy(pairs.label), pairs, *seen)


def _samples(plan: Plan, rows: Ints, features: Features) -> Samples:
    """The impressions ``rows``, whose features these are."""
    pairs = plan.line.rows.take(rows)
    assert pairs.label is not None
    history = plan.user_history_S[rows], plan.item_history_S[rows]
    return Samples(features, torch.from_numpy(pairs.label), pairs, *history)


# --- snapshot --------------------------------------------------------------------------------------------------------


def _seeing(plan: Plan, macro: AnyMacroGraph, part: int) -> Samples:
    """The samples of a part that all see ``macro`` as it is now."""
    rows = np.flatnonzero(plan.line.part_S == part)
    return _samples(plan, rows, macro.features(plan.line.rows.user[rows], plan.line.rows.item[rows]))


def _state(line: Timeline, chosen_H: Mask, groups: tuple[Groups, Groups], config: FeatureConfig) -> AnyMacroGraph:
    """The state after some events, late nodes joined."""
    macro = _graph(line, chosen_H, groups, config)
    _join(macro)
    return macro


def _graph(
    line: Timeline, chosen_H: Mask | slice, groups: tuple[Groups, Groups], config: FeatureConfig
) -> AnyMacroGraph:
    """The macro graph of some events."""
    if config.edges == "signed":
        return TypedMacroGraph(*groups, *line.events(chosen_H), types=SIGNS, recents=config.recents)
    return MacroGraph(*groups, *line.events(chosen_H), recents=config.recents)


def _join(macro: AnyMacroGraph) -> tuple[Groups, Groups] | None:
    """Let late nodes join a group, by their positive events; the new groups, if any node did."""
    users, items = joined(macro if isinstance(macro, MacroGraph) else macro.graphs[0])
    if users is macro.users and items is macro.items:
        return None
    macro.regroup(users, items)
    return users, items


# --- as of each moment -----------------------------------------------------------------------------------------------


def _replayed(plan: Plan, at_once: int, joins: list[tuple[int, Groups, Groups]]) -> Iterator[tuple[slice, Features]]:
    """Features of at most ``at_once`` impressions at a time; to ``joins`` comes who joined after how many events."""
    line, config = plan.line, plan.config
    live = _graph(line, slice(line.n_first), (plan.users.groups, plan.items.groups), config)
    replay: Callable[..., Features] = live.replay
    done_H, done_S = line.n_first, 0
    for stop_H in [*_regroupings(line, config), None]:
        stop_S = len(line.rows) if stop_H is None else int(line.before_S.searchsorted(stop_H))
        while done_S < stop_S:
            rows = slice(done_S, min(done_S + at_once, stop_S))
            upto_H = int(line.before_S[rows.stop - 1])
            yield (
                rows,
                replay(
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
            if (groups := _join(live)) is not None:
                joins.append((stop_H, *groups))


def _regroupings(line: Timeline, config: FeatureConfig) -> list[int]:
    """After how many events late nodes join: up to the last impression, at distances that the history decides."""
    if not config.regroup or not len(line.rows):
        return []
    step = max(1, round(line.n_first * (1 - config.history) / config.history / config.regroup))
    return list(range(line.n_first + step, int(line.before_S[-1]) + 1, step))


def _assembled(plan: Plan, joins: list[tuple[int, Groups, Groups]]) -> dict[PartName, Samples]:
    """All samples of kind ``as_of``."""
    rows_of = [np.flatnonzero(plan.line.part_S == part) for part in range(len(PARTS))]
    whole: list[dict[str, npt.NDArray[Any]]] = []
    filled = [0] * len(PARTS)
    for rows, chunk in _replayed(plan, 1 << 16, joins):
        # NumPy copies: torch's threads would cost more to wake for such pieces than they save.
        columns = {f.name: getattr(chunk, f.name).numpy() for f in fields(Features)}
        if not whole:
            whole = [{n: np.empty((len(own), *c.shape[1:]), c.dtype) for n, c in columns.items()} for own in rows_of]
        part_B = plan.line.part_S[rows]
        for part, out in enumerate(whole):
            own = np.flatnonzero(part_B == part)
            place = slice(filled[part], filled[part] + len(own))
            for name, column in columns.items():
                out[name][place] = column if len(own) == len(column) else column[own]
            filled[part] = place.stop
    return {
        name: _samples(plan, own, Features(**{n: torch.from_numpy(column) for n, column in columns.items()}))
        for name, own, columns in zip(PARTS, rows_of, whole, strict=True)
    }
