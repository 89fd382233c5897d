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
from macrorec.eval import cohorts, degrees, metrics
from macrorec.eval.ctr import impressions_of, measure_impressions
from macrorec.eval.links import LinkPairs, link_pairs, measure_pairs
from macrorec.eval.ranking import EvalConfig, MaskPolicy, top_k
from macrorec.graph.bipartite import edges_of
from macrorec.graph.features import Samples

Part = Literal["train", "valid", "test"]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was measured, on whom, and under which mask policy."""

    metrics: dict[str, float]
    """Means by canonical name; over users for a ranking, over pairs else. A ranking of a log with auxiliary behaviours
    also has those of each cohort of held-out items that anybody has: ``hr@10:discovery``."""
    per_user: pl.DataFrame
    """``user_id`` (external), then one column per metric that is defined for a single user; null where a user has no
    held-out item of the metric's cohort."""
    counts: dict[str, int]
    """Users evaluated, users left out, relevant items, and the like; ``users:discovery`` those of a cohort."""
    mask: str
    """The mask policy, in words."""
    seconds: float
    """Wall time, scoring included."""
    samples: pl.DataFrame | None = None
    """Clicks only: every impression, ``user_id, item_id, label, logit, user_history, item_history``."""
    degrees: pl.DataFrame | None = None
    """Rankings only: every metric by train degree of users and of held-out items; see ``degrees.breakdown``."""

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
    reengaged_E: npt.NDArray[np.bool_] | None
    """Which of them the user has met in an auxiliary behaviour of earlier parts; None where there is no such event."""
    masked: sp.csr_matrix | None
    """(U, I) pattern, or None."""
    user_ids: pl.Series
    """External ids of ``users_B``."""
    degree_B: Numbers
    """Distinct target pairs in train of each of them."""
    degree_E: Numbers
    """The same of the item of each of ``relevant_E``."""
    counts: dict[str, int]
    mask: str


def evaluate(
    model: Model,
    split: Split,
    part: Part,
    config: EvalConfig,
    *,
    samples: Mapping[Part, Samples] | None = None,
    pairs: LinkPairs | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure ``config.metrics`` of ``model`` on ``part``, with the model moved to ``device``.

    ``samples`` are the impressions of a ``FeatureSet``, by part: for clicks, a ranker needs them. Any other model
    scores their pairs, or without them the labelled pairs of the part. ``pairs`` are for links; they are made of the
    split where they are not given.

    Raises ConfigError on an unknown metric, or one of another protocol, and for a ranker without samples; DataError on
    an empty part, NaN scores, or a part of one label that is to tell an AUC.
    """
    began = time.perf_counter()
    names = check(config)
    model.to(device)
    if config.protocol == "ranking":
        measured = measure(model, ranking_task(split, part, config), config, by_degree=True)
        return replace(measured, seconds=time.perf_counter() - began)
    if config.protocol == "ctr":
        return replace(_clicks(model, split, part, config, samples), seconds=time.perf_counter() - began)
    made = link_pairs(split, config) if pairs is None else pairs
    if not len(made.part(part)):
        raise DataError(f"the part {part!r} is empty: there is nothing to evaluate")
    mask = "; ".join(["none: only the labelled pairs of the part are scored", *filter(None, [made.drawn.get(part)])])
    values, per_user, counts = measure_pairs(model, made.part(part), names, made.probe)
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
        histories = cohorts.history_lengths(earlier_than(part, split), given)
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
    """Relevant: the target-behaviour rows of ``part``. Masked: what the user knows from earlier parts.

    Raises DataError where nothing is relevant, ConfigError for a metric of a cohort that the part cannot tell.
    """
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
    known_E = cohorts.reengaged(earlier_than(part, split), edges.user_E.numpy() * n_items + relevant_E)
    degree_U, degree_I = degrees.train_degrees(split.train)
    about = split.users.ids_of(users_B), degree_U[users_B], degree_I[relevant_E]
    task = RankingTask(users_B, start_B, relevant_E, known_E, masked, *about, counts, words)
    counts |= {f"users:{cohort}": int((n_B > 0).sum()) for cohort, (_, n_B) in cohorts_of(task).items()}
    for name in check(config):
        cohort = metrics.parse(name).cohort
        if cohort and not counts.get(f"users:{cohort}"):
            raise ConfigError(f"metric {name!r} has nothing to measure in the part {part!r}: {_why(split, part, task)}")
    return task


def _why(split: Split, part: Part, task: RankingTask) -> str:
    """Why a cohort of held-out items has nobody."""
    auxiliary = [behavior.name for behavior in split.behaviors if behavior.role == "auxiliary"]
    if not auxiliary:
        return f"the log has no auxiliary behaviour (only {', '.join(b.name for b in split.behaviors)})"
    if task.reengaged_E is None:
        return f"no event of {', '.join(auxiliary)} comes before it"
    return "all of its held-out items are of the other cohort"


def earlier_than(part: Part, split: Split) -> tuple[Interactions, ...]:
    """What is known when ``part`` is measured: nothing of the part itself, nor of a later one."""
    return {"train": (), "valid": (split.train,), "test": (split.train, split.valid)}[part]


def known_items(split: Split, part: Part, mask: MaskPolicy) -> tuple[sp.csr_matrix | None, str]:
    """(U, I) pattern of what ``part`` may not be ranked, and the policy in words."""
    wanted = np.array([mask == "every" or (mask == "behaviors" and behavior.mask) for behavior in split.behaviors])
    earlier = earlier_than(part, split)
    if not earlier or not wanted.any():
        return None, "nothing is masked"
    users, items = [], []
    for known in earlier:
        keep = wanted[known.behavior]
        users.append(known.user[keep])
        items.append(known.item[keep])
    edges = edges_of(np.concatenate(users), np.concatenate(items), len(split.users), len(split.items))
    names = ", ".join(behavior.name for behavior, kept in zip(split.behaviors, wanted, strict=True) if kept)
    where = "train" if part == "valid" or not len(split.valid) else "train and valid"
    return edges.csr(len(split.items)), f"items of a user's {names} in {where} are masked"


def measure(model: Model, task: RankingTask, config: EvalConfig, *, by_degree: bool = False) -> Evaluation:
    """The ranking metrics of ``config`` on ``task``, each for all held-out items and for their cohorts; ``by_degree``
    also of users and items of one range of train degrees alone.
    """
    began = time.perf_counter()
    kinds = cohorts_of(task)
    names = metrics.with_cohorts(check(config), [kind for kind, (_, n_B) in kinds.items() if n_B.any()])
    parsed = {name: metrics.parse(name) for name in names}
    deepest = max(cut for _, cut, _ in parsed.values() if cut is not None)
    items_BK, _ = top_k(model, task.users_B, deepest, task.masked, block=config.block)
    place_BK = places(task, items_BK)
    hits: dict[str | None, tuple[npt.NDArray[np.bool_], Numbers]] = {None: (place_BK >= 0, np.diff(task.start_B))}
    hits |= {kind: ((place_BK >= 0) & of_E[place_BK], n_B) for kind, (of_E, n_B) in kinds.items()}
    columns: dict[str, pl.Series] = {"user_id": task.user_ids}
    means, values = {}, {}
    for name, (metric, cut, cohort) in parsed.items():
        hits_BK, relevant_B = hits[cohort]
        own_B = relevant_B > 0
        values_B = np.full(len(own_B), np.nan)
        values_B[own_B] = metrics.METRICS[metric].function(hits_BK[own_B, :cut], relevant_B[own_B])
        columns[name] = pl.Series(name, values_B, nan_to_null=True)
        means[name], values[name] = float(values_B[own_B].mean()), values_B
    frame = None
    if by_degree:
        held = degrees.Held(place_BK, rows_of(task), task.degree_B, task.degree_E)
        frame = degrees.breakdown(held, values, {kind: of_E for kind, (of_E, _) in kinds.items()})
    spent = time.perf_counter() - began
    return Evaluation(means, pl.DataFrame(columns), dict(task.counts), task.mask, spent, degrees=frame)


def cohorts_of(task: RankingTask) -> dict[str, tuple[npt.NDArray[np.bool_], Numbers]]:
    """Per cohort which held-out items are in it (E,), and how many of each user (B,); none without auxiliary events."""
    if task.reengaged_E is None:
        return {}
    of = {"re-engagement": task.reengaged_E, "discovery": ~task.reengaged_E}
    return {name: (of_E, np.add.reduceat(of_E, task.start_B[:-1], dtype=np.int64)) for name, of_E in of.items()}


def places(task: RankingTask, items_BK: Numbers) -> Numbers:
    """Where in ``relevant_E`` each ranked item of a user stands, shape (B, K); -1 where it is not relevant."""
    n_items = task.counts["items"]
    key_E = rows_of(task) * n_items + task.relevant_E
    key_BK = np.arange(len(items_BK))[:, None] * n_items + items_BK
    place_BK = np.minimum(np.searchsorted(key_E, key_BK), len(key_E) - 1)
    return np.where((key_E[place_BK] == key_BK) & (items_BK >= 0), place_BK, -1)


def rows_of(task: RankingTask) -> Numbers:
    """Where in ``users_B`` the user of each held-out pair stands, shape (E,)."""
    return np.repeat(np.arange(len(task.users_B)), np.diff(task.start_B))
