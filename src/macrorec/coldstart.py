"""What is a handful of items worth, for somebody who came after the fit? Folding in, beside what retraining would give.

A share of the users is held out of train entirely. The model is fitted without them; then each gives h of its items,
drawn at random, the first h of one order for every h, or all that it has. Their test items are ranked by

    fold-in    the model fitted without them, applied to their h items
    retrained  the same model fitted anew, with their h items in train
    a rule     fitted without them, applied to their h items: popularity, which needs none, or neighbours

Nobody is ever ranked an item of its train part, given or not, so that all columns rank the same candidates. Where
training stops early, it is those who are left, and their valid part, that decide on the number of epochs, once.

Shape letters: B held-out users, U users, E their target pairs in train.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from macrorec import provenance
from macrorec.answers import Scores, folds
from macrorec.api import Model
from macrorec.data.log import Interactions, Split, concat
from macrorec.errors import ConfigError, DataError
from macrorec.eval.compare import compare
from macrorec.eval.evaluate import check, measure, ranking_task
from macrorec.graph.bipartite import edges_of
from macrorec.inputs import read_split
from macrorec.run import RunConfig, fit, for_epochs, known_device, ranks, watch
from macrorec.train.trainer import TrainConfig

ALL = "all"
"""Stands for as many items as a user has in train."""
HELD, ORDER = 101, 102
"""What the two random choices are drawn for: which users, and which of their items first."""

Numbers = npt.NDArray[np.int64]
Given = int | str
"""A number of items, or ``ALL``."""


@dataclass(frozen=True, slots=True, eq=False)
class Newcomers:
    """Held-out users and what they may give."""

    whole: Split
    """Train and valid as they are; test has their rows alone."""
    warm: Split
    """All parts without them."""
    users_B: Numbers
    pair_E: Numbers
    """Their target pairs in train, one key ``user * n_items + item`` each; sorted."""
    rank_E: Numbers
    """Place of each pair in the order in which its user gives, from 0."""

    def given(self, h: Given) -> Numbers:
        """The pairs of those who give ``h`` items each."""
        return self.pair_E if isinstance(h, str) else self.pair_E[self.rank_E < h]

    def with_given(self, h: Given) -> Split:
        """``warm``, with what they give in train."""
        rows = self.whole.train
        key = rows.user.astype(np.int64) * len(rows.items) + rows.item
        theirs = (rows.behavior == rows.target) & np.isin(key, self.given(h))
        return replace(self.warm, train=concat(self.warm.train, rows.take(theirs)))


def newcomers(parts: Split, share: float, least: int, seed: int) -> Newcomers:
    """A ``share`` of the users who have something in test, and at least ``least`` items in train; at least one.

    Raises DataError where nobody has, or all would be held out.
    """
    n_users, n_items = len(parts.users), len(parts.items)
    rows = parts.train.take(parts.train.behavior == parts.train.target)
    pair_E = rows.pairs()
    degree_U = np.bincount(pair_E // n_items, minlength=n_users)
    tested_U = np.zeros(n_users, dtype=bool)
    tested_U[parts.test.user[parts.test.behavior == parts.test.target]] = True
    able_U = np.flatnonzero(tested_U & (degree_U >= least))
    if not len(able_U):
        raise DataError(f"nobody has {least} items in train and one in test: let them give fewer")
    n_held = max(1, round(share * len(able_U)))
    users_B = np.sort(_random(seed, HELD).choice(able_U, n_held, replace=False))
    if n_held == np.count_nonzero(degree_U):
        raise DataError(f"a share of {share:g} holds out all {n_held:,} users: nobody is left to learn from")
    pair_E = pair_E[np.isin(pair_E // n_items, users_B)]
    order_E = np.lexsort((_random(seed, ORDER).random(len(pair_E)), pair_E // n_items))
    size_B = degree_U[users_B]
    rank_E = np.empty_like(pair_E)
    rank_E[order_E] = np.arange(len(pair_E)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
    whole = replace(parts, test=parts.test.take(np.isin(parts.test.user, users_B)))
    return Newcomers(whole, without(parts, users_B), users_B, pair_E, rank_E)


def without(parts: Split, users_B: Numbers) -> Split:
    """``parts`` without any row of these users."""

    def kept(part: Interactions) -> Interactions:
        return part.take(~np.isin(part.user, users_B))

    return replace(parts, train=kept(parts.train), valid=kept(parts.valid), test=kept(parts.test))


def study(
    config: RunConfig,
    rules: Mapping[str, Any],
    *,
    items: Sequence[int] = (1, 3, 5, 10),
    share: float = 0.2,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The metrics of every way to serve newcomers, by how many items they give; ``rules`` are models' ``Config``s.

    Per seed one fit to choose the number of epochs, one without the newcomers, and one for each number of items and for
    all. Raises ConfigError for a model that cannot fold in, or for settings that tell nothing.
    """
    if config.eval.protocol != "ranking" or ranks(config.model):
        raise ConfigError("coldstart ranks for new users: it takes a model of rankings, not of clicks or links")
    if not items or min(items) < 1 or list(items) != sorted(set(items)):
        raise ConfigError(f"the numbers of items must ascend from at least 1; got {', '.join(map(str, items))}")
    if not 0 < share < 1:
        raise ConfigError(f"the share of users to hold out must lie between 0 and 1; got {share:g}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be different numbers, at least one; got {list(seeds)}")
    on = known_device(device)
    metric = config.train.monitor or check(config.eval)[0]
    ways, numbers = ("fold-in", "retrained", *rules), _numbers(items)
    told = [_once(replace(config, seed=seed), rules, items, share, on, note) for seed in seeds]
    cells = {way: [_spreads([one["metrics"][way, h] for one in told]) | {"items": h} for h in numbers] for way in ways}
    return {
        "metric": metric,
        "items": list(numbers),
        "share": share,
        "seeds": list(seeds),
        "users": [one["users"] for one in told],
        "epochs": [one["epochs"] for one in told],
        "ways": cells,
        "differences": [_difference(told, seeds, h, metric) for h in numbers],
        "seconds": {name: sum(one["seconds"][name] for one in told) for name in told[0]["seconds"]},
        "data": told[0]["data"],
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


def _once(
    config: RunConfig,
    rules: Mapping[str, Any],
    items: Sequence[int],
    share: float,
    device: torch.device,
    note: Callable[[str], None] | None,
) -> dict[str, Any]:
    """One seed: metrics by (way, number of items), per-user frames of the two first ways, and seconds."""
    parts = read_split(config.source, config.prepare, config.split, seed=config.seed)
    last = parts.with_valid_in_train() if config.refit and len(parts.valid) else parts
    cold = newcomers(last, share, max(items), config.seed)
    settings = _settings(config, without(parts, cold.users_B), device)
    task = ranking_task(cold.whole, "test", config.eval)
    seconds = dict.fromkeys(("fit", "fold-in", "retrained"), 0.0)
    began = time.perf_counter()
    model = fit(config, cold.warm, device, settings)[0]
    if not folds(model):
        raise ConfigError(f"{type(model).__name__} cannot score a user that it was not trained on; choose another")
    seconds["fit"] = time.perf_counter() - began
    others = {way: fit(replace(config, model=rule), cold.warm, device, settings)[0] for way, rule in rules.items()}
    found: dict[tuple[str, Given], Mapping[str, float]] = {}
    frames: dict[tuple[str, Given], pl.DataFrame] = {}
    for h in _numbers(items):
        if note:
            note(f"seed {config.seed}: {len(cold.users_B):,} users give {h} items")
        for way, own in (("fold-in", model), *others.items()):
            measured = measure(folded(own, cold, h), task, config.eval)
            found[way, h], frames[way, h] = measured.metrics, measured.per_user
            seconds["fold-in"] += measured.seconds if way == "fold-in" else 0.0
        began = time.perf_counter()
        anew = fit(config, cold.with_given(h), device, settings)[0]
        seconds["retrained"] += time.perf_counter() - began
        measured = measure(anew, task, config.eval)
        found["retrained", h], frames["retrained", h] = measured.metrics, measured.per_user
    return {
        "users": len(cold.users_B),
        "epochs": settings.epochs if model.batches is not None else None,
        "metrics": found,
        "frames": frames,
        "seconds": seconds,
        "data": parts.digest(),
    }


def _settings(config: RunConfig, warm: Split, device: torch.device) -> TrainConfig:
    """How long to train: as long as valid, of those who are left, says."""
    validate = watch(config, warm, device)
    if validate is None:
        return replace(config.train, monitor=None, patience=None)
    return for_epochs(config.train, fit(config, warm, device, validate=validate)[1].best_epoch)


def folded(model: Model, cold: Newcomers, h: Given) -> Scores:
    """What ``model`` tells of newcomers from ``h`` items each."""
    n_items = len(cold.whole.items)
    given_E = cold.given(h)
    first_B, last_B = (np.searchsorted(given_E, (cold.users_B + side) * n_items) for side in (0, 1))

    def score(users_B: Tensor) -> Tensor:
        place = np.searchsorted(cold.users_B, users_B.cpu().numpy())
        own = [given_E[first_B[p] : last_B[p]] % n_items for p in place]
        row_E = np.repeat(np.arange(len(own)), [len(items) for items in own])
        return model.fold_in(edges_of(row_E, np.concatenate(own), len(own), n_items)).cpu()

    return Scores(n_items, score)


def _spreads(measured: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and deviation of each metric over seeds; the deviation of one seed is None."""
    return {
        name: {
            "mean": statistics.mean(one[name] for one in measured),
            "deviation": statistics.stdev(one[name] for one in measured) if len(measured) > 1 else None,
        }
        for name in measured[0]
    }


def _difference(told: Sequence[Mapping[str, Any]], seeds: Sequence[int], h: Given, metric: str) -> dict[str, Any]:
    """Folding in minus retraining, with the 95 % interval of a paired bootstrap over the users of all seeds."""
    first, second = (
        pl.concat(
            one["frames"][way, h].with_columns(user_id=pl.format("{} {}", pl.lit(seed), pl.col("user_id")))
            for seed, one in zip(seeds, told, strict=True)
        )
        for way in ("fold-in", "retrained")
    )
    (found,) = compare(first, second, [metric])
    return {"items": h, "difference": found.difference, "low": found.low, "high": found.high, "users": found.users}


def _numbers(items: Sequence[int]) -> tuple[Given, ...]:
    return (*items, ALL)


def _random(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))
