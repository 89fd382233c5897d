"""How good is a model on one part of a split? Per user, by one stated mask policy, with everything left out counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from macrorec.api import Model, Ranker
from macrorec.data.log import Interactions, Split
from macrorec.errors import ConfigError, DataError
from macrorec.eval import cohorts, metrics
from macrorec.eval.ctr import impressions_of, measure_impressions
from macrorec.eval.links import draw_negatives, measure_pairs
from macrorec.eval.ranking import EvalConfig, top_k
from macrorec.graph.bipartite import edges_of
from macrorec.graph.features import Samples

Part = Literal["train", "valid", "test"]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was measured, on whom, and under which mask policy."""

    metrics: dict[str, float]
    """Means by canonical name; over users for a ranking, over pairs else."""
    per_user: pl.DataFrame
    """``user_id`` (external), then one column per metric that is defined for a single user."""
    counts: dict[str, int]
    """Users evaluated, users left out, relevant items, and the like."""
    mask: str
    """The mask policy, in words."""
    seconds: float
    """Wall time, scoring included."""
    samples: pl.DataFrame | None = None
    """Clicks only: every impression, ``user_id, item_id, label, logit, user_history, item_history``."""

    @property
    def breakdown(self) -> pl.DataFrame | None:
        """Clicks only: metrics by cohort, whatever ``EvalConfig.samples`` counts; see ``cohorts.breakdown``."""
        return None if self.samples is None else cohorts.breakdown(self.samples)

    @property
    def reliability(self) -> pl.DataFrame | None:
        """Clicks only: what came true of what was predicted, over all impressions; see ``cohorts.reliability``."""
        return None if self.samples is None else cohorts.reliability(self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class RankingTask:
    """Whom to rank for, what counts as a hit, and what is never ranked. Made once, measured as often as needed."""

    users_B: Numbers
    """Users with a relevant item, ascending."""
    start_B: Numbers
    """Row pointers (B + 1,) into ``relevant_E``."""
    relevant_E: Numbers
    """Relevant items of each user, ascending."""
    masked: sp.csr_matrix | None
    """(U, I) pattern, or None."""
    user_ids: pl.Series
    """External ids of ``users_B``."""
    counts: dict[str, int]
    mask: str


def evaluate(
    model: Model,
    split: Split,
    part: Part,
    config: EvalConfig,
    *,
    samples: Mapping[Part, Samples] | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure ``config.metrics`` of ``model`` on ``part``, with the model moved to ``device``.

    ``samples`` are the impressions of a ``FeatureSet``, by part: for clicks, a ranker needs them. Any other model
    scores their pairs, or without them the labelled pairs of the part.

    Raises ConfigError on an unknown metric, or one of another protocol, and for a ranker without samples; DataError on
    an empty part, NaN scores, or a part of one label that is to tell an AUC.
    """
    began = time.perf_counter()
    names = check(config)
    model.to(device)
    if config.protocol == "ranking":
        return replace(measure(model, ranking_task(split, part, config), config), seconds=time.perf_counter() - began)
    if config.protocol == "ctr":
        return replace(_clicks(model, split, part, config, samples), seconds=time.perf_counter() - began)
    pairs = split.part(part)
    mask = "none: only the labelled pairs of the part are scored"
    if pairs.label is None:
        pairs = draw_negatives(split, part, config.negatives, seed=config.negative_seed)
        mask += f"; {config.negatives} non-edges per edge drawn with seed {config.negative_seed}"
    if not len(pairs):
        raise DataError(f"the part {part!r} is empty: there is nothing to evaluate")
    train = split.train
    values, per_user, counts = measure_pairs(
        model,
        pairs,
        names,
        lambda: draw_negatives(split, "train", seed=config.negative_seed) if train.label is None else train,
    )
    return Evaluation(values, per_user, counts, mask, time.perf_counter() - began)


def _clicks(
    model: Model, split: Split, part: Part, config: EvalConfig, samples: Mapping[Part, Samples] | None
) -> Evaluation:
    given: Samples | Interactions | None = None if samples is None else samples.get(part)
    histories = None
    if given is None and isinstance(model, Ranker):
        name = type(model).__name__
        raise ConfigError(
            f"{name} is a ranker: it predicts from the features of impressions, and the part {part!r} has none; "
            "set features in the run's configuration, or pass the samples of a feature set"
        )
    if given is None:
        given = split.part(part)
        if len(given):
            given = impressions_of(given)
        earlier = {"train": (), "valid": (split.train,), "test": (split.train, split.valid)}[part]
        histories = cohorts.history_lengths(earlier, given)
    if not len(given):
        raise DataError(f"the part {part!r} is empty: there is nothing to evaluate")
    clicks = measure_impressions(model, given, check(config), part, histories=histories, count=config.samples)
    mask = "none: only the labelled pairs of the part are scored"
    if config.samples == "warm":
        mask += ", those whose user and item have positive history"
    return Evaluation(clicks.values, clicks.per_user, clicks.counts, mask, 0.0, clicks.samples)


def check(config: EvalConfig) -> tuple[str, ...]:
    """Canonical names of ``config.metrics``, each once. Raises ConfigError on one that the protocol cannot measure."""
    names = tuple(dict.fromkeys(metrics.canonical(name) for name in config.metrics))
    for name in names:
        metric = metrics.METRICS[metrics.parse(name)[0]]
        if config.protocol not in metric.protocols:
            own = ", ".join(m.name for m in metrics.METRICS.values() if config.protocol in m.protocols)
            raise ConfigError(f"metric {name!r} does not belong to the protocol {config.protocol!r}; it measures {own}")
    if not names:
        raise ConfigError("eval.metrics is empty; name at least one metric")
    return names


def ranking_task(split: Split, part: Part, config: EvalConfig) -> RankingTask:
    """Relevant: the target-behaviour rows of ``part``. Masked: what the user knows from earlier parts."""
    n_users, n_items = len(split.users), len(split.items)
    rows = split.part(part)
    rows = rows.take(rows.behavior == rows.target)
    edges = edges_of(rows.user, rows.item, n_users, n_items)
    if not len(edges):
        raise DataError(f"the part {part!r} holds no row of the behaviour {rows.behaviors[-1].name!r} to evaluate on")
    start_U, relevant_E = edges.start_U.numpy(), edges.item_E.numpy()
    users_B = np.flatnonzero(np.diff(start_U))
    masked, words = known_items(split, part, config.mask)
    unreachable = 0
    if masked is not None:
        keys = sp.csr_matrix(
            (np.ones(len(relevant_E), dtype=np.float32), relevant_E, start_U), shape=(n_users, n_items)
        )
        unreachable = int(keys.multiply(masked).nnz)
    counts = {
        "users": len(users_B),
        "users_left_out": n_users - len(users_B),
        "relevant": len(relevant_E),
        "unreachable": unreachable,
        "items": n_items,
    }
    start_B = np.append(start_U[users_B], len(relevant_E))
    return RankingTask(users_B, start_B, relevant_E, masked, split.users.ids_of(users_B), counts, words)


def known_items(split: Split, part: Part, mask: Literal["behaviors", "none"]) -> tuple[sp.csr_matrix | None, str]:
    """(U, I) pattern of what ``part`` may not be ranked, and the policy in words."""
    if mask == "none":
        return None, "nothing is masked"
    earlier = {"train": (), "valid": (split.train,), "test": (split.train, split.valid)}[part]
    names = [behavior.name for behavior in split.behaviors if behavior.mask]
    if not earlier or not names:
        return None, "nothing is masked"
    users, items = [], []
    wanted = np.array([behavior.mask for behavior in split.behaviors])
    for known in earlier:
        keep = wanted[known.behavior]
        users.append(known.user[keep])
        items.append(known.item[keep])
    edges = edges_of(np.concatenate(users), np.concatenate(items), len(split.users), len(split.items))
    where = "train" if part == "valid" or not len(split.valid) else "train and valid"
    return edges.csr(len(split.items)), f"items of a user's {', '.join(names)} in {where} are masked"


def measure(model: Model, task: RankingTask, config: EvalConfig) -> Evaluation:
    """The ranking metrics of ``config`` on ``task``."""
    began = time.perf_counter()
    parsed = {name: metrics.parse(name) for name in check(config)}
    deepest = max(cut for _, cut in parsed.values() if cut is not None)
    items_BK, _ = top_k(model, task.users_B, deepest, task.masked, block=config.block)
    hits_BK = hits(task, items_BK)
    relevant_B = np.diff(task.start_B)
    columns = {name: metrics.METRICS[m].function(hits_BK[:, :cut], relevant_B) for name, (m, cut) in parsed.items()}
    per_user = pl.DataFrame({"user_id": task.user_ids, **columns})
    means = {name: float(values.mean()) for name, values in columns.items()}
    return Evaluation(means, per_user, dict(task.counts), task.mask, time.perf_counter() - began)


def hits(task: RankingTask, items_BK: Numbers) -> npt.NDArray[np.bool_]:
    """Whether each ranked item is relevant to its user, shape (B, K); -1 never is."""
    n_items = task.counts["items"]
    row_E = np.repeat(np.arange(len(task.users_B)), np.diff(task.start_B))
    key_E = row_E * n_items + task.relevant_E
    key_BK = np.arange(len(items_BK))[:, None] * n_items + items_BK
    place_BK = np.minimum(np.searchsorted(key_E, key_BK), len(key_E) - 1)
    found: npt.NDArray[np.bool_] = (key_E[place_BK] == key_BK) & (items_BK >= 0)
    return found
