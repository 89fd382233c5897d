"""How does one get from a log to recommendations in three lines?

    recommender = macrorec.fit("clicks.csv", model="ease")
    recommender.recommend(["ann", "bob"], k=10)
    recommender.save("clicks.bundle")

Only external ids cross this interface; tables come back as polars frames. The torch module stays at hand as ``module``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec import answers, configs, explanations, models, regions
from macrorec.api import Model, Ranker
from macrorec.bundle import MANIFEST, Bundle
from macrorec.clusters import Clusters, clusters_of, end_of
from macrorec.data.log import Behavior, Interactions
from macrorec.data.sources.table import read_log, read_table
from macrorec.data.vocab import Ids, Vocab
from macrorec.errors import ConfigError, UserError
from macrorec.eval.ranking import evaluating
from macrorec.eval.vectors import Ranking
from macrorec.graph.bipartite import Graph, build, edges_of
from macrorec.graph.features import FeatureConfig, Samples
from macrorec.ids import Numbers, Unknown, check, given, number_of, numbers, recognised
from macrorec.inputs import features_of_log, titles_of
from macrorec.live import EVENT, after, new_events
from macrorec.restore import restore
from macrorec.run import known_device
from macrorec.store import Run
from macrorec.train import memory
from macrorec.train.progress import reporter
from macrorec.train.trainer import TrainConfig, train

EPOCHS = 50
"""Epochs of ``fit`` where none are asked for; a run with a validation part chooses them by a metric."""
PASSES = 5
"""The same for a ranker, which overfits after a few."""


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item is, or is not, recommended to a user."""

    user_id: Any
    item_id: Any
    score: float
    path: str
    """What made the score: ``model``, ``fold_in``, ``macro`` or ``popular``; see ``macrorec.answers``."""
    exact: bool
    """Whether the weights, or contributions, are the terms of the score, and sum to it; else they are likenesses to the
    item."""
    reasons: pl.DataFrame
    """item_id and weight: the user's items, the strongest first. Of a ranker: ``macrorec.explanations.COLUMNS``."""


def fit(
    log: Any,
    model: str = "ease",
    *,
    target: str | None = None,
    behaviors: Sequence[Behavior] | None = None,
    columns: Mapping[str, str] | None = None,
    positive: float | None = None,
    features: FeatureConfig | None = None,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
    **params: Any,
) -> Recommender:
    """Fit ``model`` to all of ``log``: a file of any known format, a table (polars, pandas, pyarrow), or Interactions.

    ``target`` names the behaviour to recommend for, where there are several; the others are auxiliary, and do not take
    items out of recommendations. ``behaviors`` says the same in full. ``columns`` maps our names to the log's, such as
    ``{"user_id": "customer"}``. ``positive`` keeps only rows with at least this rating; for a ranker it keeps all, and
    says which are positives. ``features`` are a ranker's, by default as ``macrorec.inputs.features_of_log`` chooses.
    ``params`` are settings of the model (``macrorec models``) and of its training, such as ``dim=32, epochs=20``.
    Raises ConfigError for settings, DataError for the log, ResourceError where the model would not fit in memory.
    """
    kind = models.load(model)
    own = {field.name for field in dataclasses.fields(kind.Config)}
    training = {name: value for name, value in params.items() if name not in own}
    legal = own | {field.name for field in dataclasses.fields(TrainConfig)} - {"monitor", "patience", "validate_every"}
    for name in training:
        if name not in legal:
            raise ConfigError(f"fit: unknown setting {name!r}; allowed are {', '.join(sorted(legal))}")
    config = configs.parse_model({"name": model, **{k: v for k, v in params.items() if k in own}})
    on = known_device(device)
    ranks = issubclass(kind, Ranker)
    least = {"binary" if ranks else "positive": positive}
    events, text = read_log(log, target=target, behaviors=behaviors, columns=columns, **least)
    graph = build(events)
    labelled: Interactions | Samples = events
    if ranks:
        known = features_of_log(events, features, seed=seed)
        graph, labelled = dataclasses.replace(graph, macro=known.macro), known.samples["train"]
    elif features is not None:
        raise ConfigError(f"fit: features are for rankers, and {model} is none; leave them out")
    what = f"{model} on {graph.n_users:,} users x {graph.n_items:,} items"
    memory.require(kind.memory(config, graph), what, "choose another model, or a k-core of the log")
    module = kind.from_graph(config, graph, torch.Generator().manual_seed(seed))
    if training and module.batches is None:
        raise ConfigError(f"fit: {model} is fitted in closed form, and takes no {next(iter(training))!r}")
    settings: TrainConfig = configs.parse(TrainConfig, {"epochs": PASSES if ranks else EPOCHS, **training})
    train(module, graph, settings, seed=seed, labelled=labelled, progress=reporter(quiet=quiet), device=str(on))
    found = Clusters.of(module, graph, events.users, events.items, end_of(events))
    return Recommender(module, graph, events.users, events.items, text, positive=positive, clusters=found)


def load(folder: str | Path, *, device: str = "cpu") -> Recommender:
    """What ``Recommender.save`` wrote, an exported bundle, or a finished run. Raises DataError for anything else."""
    on, place = known_device(device), Path(folder)
    if place.is_dir() and not (place / MANIFEST).is_file() and (place / "config.json").is_file():
        found = restore(Run.open(place))
        config, parts = found.config, found.parts
        titles, positive = titles_of(config.source, parts.items), config.prepare.binary
        module, ids = found.model.to(on), (parts.users, parts.items)
        clusters = clusters_of(module, parts)
        return Recommender(module, found.graph, *ids, titles=titles, positive=positive, clusters=clusters)
    bundle = Bundle.load(place)
    kept = bundle.config.get("recommender", {})
    text = (bool(kept["text"][0]), bool(kept["text"][1])) if kept else (False, False)
    positive = kept.get("positive") if kept else bundle.config.get("prepare", {}).get("binary")
    own = bundle.model.to(on), bundle.graph, bundle.users, bundle.items
    recommender = Recommender(*own, text, titles=bundle.titles, positive=positive, clusters=bundle.clusters)
    if kept and kept["events"]["user_id"]:
        recommender.append(kept["events"])
    return recommender


class Recommender:
    """A fitted model with the ids, the histories and the news that it answers from."""

    def __init__(
        self,
        module: Model,
        graph: Graph,
        users: Vocab,
        items: Vocab,
        text: tuple[bool, bool] = (False, False),
        *,
        titles: pl.Series | None = None,
        positive: float | None = None,
        clusters: Clusters | None = None,
    ) -> None:
        """``text``: whether ids of users and of items are given back as text, even where all are integers. ``titles``:
        names of the items, for people. ``positive``: the least rating of a positive, where events come with ratings."""
        self.module = module.eval()
        self.items = items
        self._fitted = (users, graph)
        self._text = text
        self._titles = titles
        self._positive = positive
        self.clusters = clusters or Clusters.of(module, graph, users, items)
        """The model's clusters of the users and items of the fit; None where it has none."""
        ids = {"user_id": users.ids.dtype, "item_id": items.ids.dtype}
        self._live = after(users, graph, items, pl.DataFrame(schema={**ids, **EVENT}))

    def __repr__(self) -> str:
        name = models.name_of(type(self.module))
        return f"Recommender({name}, {len(self.users):,} users, {len(self.items):,} items)"

    @property
    def users(self) -> Vocab:
        """Users known now: those of the fit, then those of ``update``."""
        return self._live.users

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """The behaviours of the log, target last."""
        return self._live.graph.behaviors

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        *,
        filter_seen: bool = True,
        candidates: Ids | None = None,
        unknown: Unknown = "error",
    ) -> pl.DataFrame:
        """The k best items of each user: user_id, item_id, score, rank (from 1), path; fewer where items run out.

        ``filter_seen`` leaves out what the user has by a behaviour that masks. ``candidates`` restricts to some items.
        ``unknown``, for ids never seen: ``error``, ``skip``, or ``fallback`` to the most popular items (of candidates,
        unknown ones are then left out). ``path``: see ``macrorec.answers``; on the path ``popular`` a score is a number
        of users. Ties go by item number.
        """
        check(k, unknown)
        asked, number = self._users_asked(users, unknown)
        pool = self._pool(candidates, unknown)
        found, path = answers.rank(self.module, self._live, number, k, filter_seen=filter_seen, candidates=pool)
        return self._ranked("user_id", asked, found, "item_id", self.items, self._text[1]).with_columns(
            path=_repeat(path, found)
        )

    def recommend_for(
        self,
        items: Ids,
        k: int = 10,
        *,
        filter_seen: bool = True,
        candidates: Ids | None = None,
        unknown: Unknown = "error",
    ) -> pl.DataFrame:
        """The k best items for somebody new who has ``items``: item_id, score, rank, path.

        ``unknown`` is about items, given or candidates: an ``error``, else they are left out. Without a known item, or
        with a model that cannot fold in, the answer is what is popular.
        """
        check(k, unknown)
        _, own = self._items_asked(items, unknown)
        history = edges_of(np.zeros(len(own), dtype=np.int64), own, 1, len(self.items))
        pool = self._pool(candidates, unknown)
        found, path = answers.rank_new(self.module, self._live, history, k, filter_seen=filter_seen, candidates=pool)
        asked = pl.Series("user_id", [0])
        frame = self._ranked("user_id", asked, found, "item_id", self.items, self._text[1])
        return frame.drop("user_id").with_columns(path=pl.lit(path))

    def score(self, pairs: Any, *, unknown: Literal["error", "skip"] = "error") -> pl.DataFrame:
        """Scores of pairs, a table with user_id and item_id or a list of (user, item): user_id, item_id, score, path.

        ``unknown`` ids are an error, or their pairs are left out.
        """
        check(1, unknown, legal=("error", "skip"))
        if isinstance(pairs, list | tuple):
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                raise UserError("score: give a table with user_id and item_id, or a list of (user, item)")
            pairs = {"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]}
        frame = read_table(pairs, where="score")
        user = numbers(self.users, frame["user_id"], "user", unknown)
        item = numbers(self.items, frame["item_id"], "item", unknown)
        known = (user >= 0) & (item >= 0)
        score, path = answers.score_pairs(self.module, self._live, user[known], item[known])
        columns = {
            "user_id": given(self.users.ids_of(user[known]), self._text[0]),
            "item_id": given(self.items.ids_of(item[known]), self._text[1]),
        }
        return pl.DataFrame({**columns, "score": score, "path": pl.Series(path.tolist(), dtype=pl.String)})

    def similar_items(self, items: Ids, k: int = 10, *, unknown: Literal["error", "skip"] = "error") -> pl.DataFrame:
        """The k items most like each item: item_id, similar_id, score, rank; never the item itself.

        By cosine of item vectors for models with vectors; by the weight with which the one speaks for the other for
        models that are linear in items; else by cosine of the sets of users.
        """
        check(k, unknown, legal=("error", "skip"))
        asked, number = self._items_asked(items, unknown)
        found = answers.alike_items(self.module, self._live, number, k)
        return self._ranked("item_id", asked, found, "similar_id", self.items, self._text[1])

    def similar_users(self, users: Ids, k: int = 10, *, unknown: Literal["error", "skip"] = "error") -> pl.DataFrame:
        """The k users most like each user: user_id, similar_id, score, rank; never the user.

        By cosine of user vectors for models with vectors, else by cosine of the sets of items.
        """
        check(k, unknown, legal=("error", "skip"))
        asked, number = self._users_asked(users, unknown)
        found = answers.alike_users(self.module, self._live, number, k)
        return self._ranked("user_id", asked, found, "similar_id", self.users, self._text[0])

    def explain(self, user: Any, item: Any, k: int | None = None) -> Explanation:
        """What carries the score of ``item``? The k strongest of the user's items, or all; of a ranker, the k strongest
        neighbours of each hop, and the others together."""
        user_id, item_id, score, path = self.score([(user, item)]).row(0)
        user_number, item_number = int(self.users.numbers([user])[0]), int(self.items.numbers([item])[0])
        if isinstance(self.module, Ranker) and path != "popular":
            why = answers.why(self.module, user_number, item_number)
            if why is not None:
                called = explanations.names(self.module.macro, self.users, self.items, self._titles)
                return Explanation(user_id, item_id, score, path, True, explanations.table(why, called, k))
        own_H, weight_H, exact = answers.reasons(self.module, self._live, user_number, item_number)
        order = weight_H.abs().argsort(descending=True, stable=True)[:k]
        ids = given(self.items.ids_of(own_H[order].numpy()), self._text[1])
        reasons = pl.DataFrame({"item_id": ids, "weight": weight_H[order].numpy()})
        return Explanation(user_id, item_id, score, path, exact, reasons)

    def regions(self, user: Any) -> pl.DataFrame:
        """The user's items by the behaviours that they are known by: a row per region of the Venn diagram.

        behaviors, items (how many), events of each behaviour, weight (mean weight that the model gives to the edges),
        the same by behaviour, item_ids (the strongest first), and titles where there are any. Weights are null where
        the model gives none, and for edges that are younger than the fit.
        """
        number = number_of(self.users, user, "user")
        with evaluating(self.module):
            weights = self.module.edge_weights()
        found = regions.regions(self._live.graph, self._fitted[1], weights, number)
        frame = regions.table(found, self._live.graph, self.items, self._titles)
        return frame.with_columns(pl.col("item_ids").cast(pl.List(pl.String))) if self._text[1] else frame

    def history(self, user: Any) -> pl.DataFrame:
        """What a user has by the target behaviour: item_id and weight, in the order of item numbers."""
        number = number_of(self.users, user, "user")
        target = self._live.graph.target
        rows = slice(int(target.start_U[number]), int(target.start_U[number + 1]))
        ids = given(self.items.ids_of(target.item_E[rows].numpy()), self._text[1])
        return pl.DataFrame({"item_id": ids, "weight": target.weight_E[rows].numpy()})

    def activity(self) -> pl.DataFrame:
        """user_id and n_items, how many items each known user has by the target behaviour."""
        sizes = self._live.graph.target.start_U.diff().numpy()
        return pl.DataFrame({"user_id": given(self.users.ids, self._text[0]), "n_items": sizes})

    def update(self, events: Any, *, columns: Mapping[str, str] | None = None) -> dict[str, int]:
        """Let new events count at once. ``events`` is a table like the log; returns what they brought, as counts.

        As after a new fit on all events: seen items, popularity, the histories that answers are made from, and all of
        the model ``popular``. As the last fit left it: everything learned (item vectors, item-to-item weights,
        neighbours), and the set of items. Users with events here, known or new, are from now on scored by folding in
        their whole history; for models that are linear in items that is exactly what a new fit would answer with the
        old item-to-item weights. A ranker's macro graph counts new events like those of its log, with groups as they
        were: known users are scored by the model from the counts of now, new ones from their counts alone. Neither the
        order of events nor their cut into updates matters; only those without a timestamp count as later than all that
        have one, in their order. Events of items unknown to the model are passed over, and counted. Costs one pass over
        the log.
        """
        users, graph = self._fitted
        new, unknown = new_events(events, columns, users, self.items, graph.behaviors, self._positive)
        before = len(self.users)
        self.append(new)
        return {
            "events": len(new),
            "users": new["user_id"].n_unique(),
            "new_users": len(self.users) - before,
            "unknown_items": unknown,
        }

    def append(self, events: Any) -> None:
        """Let events count that ``macrorec.live.new_events`` has made, or a bundle has kept."""
        frame = self._live.events
        kept = pl.DataFrame(events, schema_overrides=frame.schema)
        users, graph = self._fitted
        self._live = after(users, graph, self.items, pl.concat([frame, kept], how="diagonal"))
        self.module.refresh(self._live.graph)

    def save(self, folder: str | Path) -> Path:
        """Write a bundle: model, ids, histories, and the events since the fit. No pickle in it."""
        users, graph = self._fitted
        events = self._live.events.to_dict(as_series=False)
        kept = {"recommender": {"text": list(self._text), "positive": self._positive, "events": events}}
        own = self.module, graph, users, self.items
        return Bundle.save(folder, *own, kept, titles=self._titles, clusters=self.clusters)

    def _users_asked(self, ids: Ids, unknown: str) -> tuple[pl.Series, Numbers]:
        """Ids as they are given back, and numbers; unknown users have -1 where they are not skipped."""
        return recognised(self.users, ids, "user", unknown, self._text[0])

    def _items_asked(self, ids: Ids, unknown: str) -> tuple[pl.Series, Numbers]:
        return recognised(self.items, ids, "item", "skip" if unknown == "fallback" else unknown, self._text[1])

    def _pool(self, candidates: Ids | None, unknown: str) -> Numbers | None:
        if candidates is None:
            return None
        pool = self._items_asked(candidates, unknown)[1]
        if not len(pool):
            raise UserError("candidates: none of them is a known item; give at least one")
        return pool

    def _ranked(self, key: str, asked: pl.Series, found: Ranking, value: str, vocab: Vocab, text: bool) -> pl.DataFrame:
        """One row per answer: the id asked for, the id found, score, rank."""
        items_BK, scores_BK = found
        row, rank = np.nonzero(items_BK >= 0)
        return pl.DataFrame(
            {
                key: asked.gather(pl.Series(row)),
                value: given(vocab.ids_of(items_BK[row, rank]), text),
                "score": scores_BK[row, rank],
                "rank": rank + 1,
            }
        )


def _repeat(path: npt.NDArray[np.str_], found: Ranking) -> pl.Series:
    return pl.Series(np.repeat(path, (found[0] >= 0).sum(1)).tolist(), dtype=pl.String)
