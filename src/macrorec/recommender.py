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
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec import answers, configs, models
from macrorec.api import Model
from macrorec.bundle import MANIFEST, Bundle
from macrorec.data.log import Behavior
from macrorec.data.sources.table import read_log, read_table
from macrorec.data.vocab import Ids, Vocab
from macrorec.errors import ConfigError, DataError, UserError
from macrorec.eval.vectors import Ranking
from macrorec.graph.bipartite import Graph, build, edges_of
from macrorec.live import after
from macrorec.restore import restore
from macrorec.run import known_device
from macrorec.store import Run
from macrorec.train import memory
from macrorec.train.progress import reporter
from macrorec.train.trainer import TrainConfig, train

Unknown = Literal["error", "skip", "fallback"]
Numbers = npt.NDArray[np.int64]

EPOCHS = 50
"""Epochs of ``fit`` where none are asked for; a run with a validation part chooses them by a metric."""


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item is, or is not, recommended to a user."""

    user_id: Any
    item_id: Any
    score: float
    path: str
    """What made the score: ``model``, ``fold_in`` or ``popular``; see ``macrorec.answers``."""
    exact: bool
    """Whether the weights are the terms of the score, and sum to it; else they are likenesses to the item."""
    reasons: pl.DataFrame
    """item_id and weight: the user's items, the strongest first."""


def fit(
    log: Any,
    model: str = "ease",
    *,
    target: str | None = None,
    behaviors: Sequence[Behavior] | None = None,
    columns: Mapping[str, str] | None = None,
    positive: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
    **params: Any,
) -> Recommender:
    """Fit ``model`` to all of ``log``: a file of any known format, a table (polars, pandas, pyarrow), or Interactions.

    ``target`` names the behaviour to recommend for, where there are several; the others are auxiliary, and do not take
    items out of recommendations. ``behaviors`` says the same in full. ``columns`` maps our names to the log's, such as
    ``{"user_id": "customer"}``. ``positive`` keeps only rows with at least this rating. ``params`` are settings of the
    model (``macrorec models``) and of its training, such as ``dim=32, epochs=20``. Raises ConfigError for settings,
    DataError for the log, ResourceError where the model would not fit in memory.
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
    events, text = read_log(log, target=target, behaviors=behaviors, columns=columns, positive=positive)
    graph = build(events)
    what = f"{model} on {graph.n_users:,} users x {graph.n_items:,} items"
    memory.require(kind.memory(config, graph), what, "choose another model, or a k-core of the log")
    module = kind.from_graph(config, graph, torch.Generator().manual_seed(seed))
    if training and module.batches is None:
        raise ConfigError(f"fit: {model} is fitted in closed form, and takes no {next(iter(training))!r}")
    settings: TrainConfig = configs.parse(TrainConfig, {"epochs": EPOCHS, **training})
    train(module, graph, settings, seed=seed, labelled=events, progress=reporter(quiet=quiet), device=str(on))
    return Recommender(module, graph, events.users, events.items, text)


def load(folder: str | Path, *, device: str = "cpu") -> Recommender:
    """What ``Recommender.save`` wrote, an exported bundle, or a finished run. Raises DataError for anything else."""
    on, place = known_device(device), Path(folder)
    if place.is_dir() and not (place / MANIFEST).is_file() and (place / "config.json").is_file():
        module, graph, parts, _ = restore(Run.open(place))
        return Recommender(module.to(on), graph, parts.users, parts.items)
    bundle = Bundle.load(place)
    kept = bundle.config.get("recommender", {})
    text = (bool(kept["text"][0]), bool(kept["text"][1])) if kept else (False, False)
    recommender = Recommender(bundle.model.to(on), bundle.graph, bundle.users, bundle.items, text)
    if kept and kept["events"]["user_id"]:
        recommender.update(kept["events"])
    return recommender


class Recommender:
    """A fitted model with the ids, the histories and the news that it answers from."""

    def __init__(
        self, module: Model, graph: Graph, users: Vocab, items: Vocab, text: tuple[bool, bool] = (False, False)
    ) -> None:
        """``text``: whether ids of users and of items are given back as text, even where all are integers."""
        self.module = module.eval()
        self.items = items
        self._fitted = (users, graph)
        self._text = text
        ids = {"user_id": users.ids.dtype, "item_id": items.ids.dtype}
        self._live = after(
            users, graph, items, pl.DataFrame(schema={**ids, "behavior": pl.String, "weight": pl.Float64})
        )

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
        _check(k, unknown)
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
        _check(k, unknown)
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
        _check(1, unknown, legal=("error", "skip"))
        if isinstance(pairs, list | tuple):
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                raise UserError("score: give a table with user_id and item_id, or a list of (user, item)")
            pairs = {"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]}
        frame = read_table(pairs, where="score")
        user = _numbers(self.users, frame["user_id"], "user", unknown)
        item = _numbers(self.items, frame["item_id"], "item", unknown)
        known = (user >= 0) & (item >= 0)
        score, path = answers.score_pairs(self.module, self._live, user[known], item[known])
        columns = {
            "user_id": _given(self.users.ids_of(user[known]), self._text[0]),
            "item_id": _given(self.items.ids_of(item[known]), self._text[1]),
        }
        return pl.DataFrame({**columns, "score": score, "path": pl.Series(path.tolist(), dtype=pl.String)})

    def similar_items(self, items: Ids, k: int = 10, *, unknown: Literal["error", "skip"] = "error") -> pl.DataFrame:
        """The k items most like each item: item_id, similar_id, score, rank; never the item itself.

        By cosine of item vectors for models with vectors; by the weight with which the one speaks for the other for
        models that are linear in items; else by cosine of the sets of users.
        """
        _check(k, unknown, legal=("error", "skip"))
        asked, number = self._items_asked(items, unknown)
        found = answers.alike_items(self.module, self._live, number, k)
        return self._ranked("item_id", asked, found, "similar_id", self.items, self._text[1])

    def similar_users(self, users: Ids, k: int = 10, *, unknown: Literal["error", "skip"] = "error") -> pl.DataFrame:
        """The k users most like each user: user_id, similar_id, score, rank; never the user.

        By cosine of user vectors for models with vectors, else by cosine of the sets of items.
        """
        _check(k, unknown, legal=("error", "skip"))
        asked, number = self._users_asked(users, unknown)
        found = answers.alike_users(self.module, self._live, number, k)
        return self._ranked("user_id", asked, found, "similar_id", self.users, self._text[0])

    def explain(self, user: Any, item: Any, k: int | None = None) -> Explanation:
        """Which of the user's items carry the score of ``item``? The k strongest, or all."""
        answer = self.score([(user, item)])
        user_number, item_number = self.users.numbers([user])[0], self.items.numbers([item])[0]
        own_H, weight_H, exact = answers.reasons(self.module, self._live, int(user_number), int(item_number))
        order = weight_H.abs().argsort(descending=True, stable=True)[:k]
        ids = _given(self.items.ids_of(own_H[order].numpy()), self._text[1])
        reasons = pl.DataFrame({"item_id": ids, "weight": weight_H[order].numpy()})
        user_id, item_id, score, path = answer.row(0)
        return Explanation(user_id, item_id, score, path, exact, reasons)

    def history(self, user: Any) -> pl.DataFrame:
        """What a user has by the target behaviour: item_id and weight, in the order of item numbers."""
        number = int(_numbers(self.users, pl.Series("id", [user]), "user", "error")[0])
        target = self._live.graph.target
        rows = slice(int(target.start_U[number]), int(target.start_U[number + 1]))
        ids = _given(self.items.ids_of(target.item_E[rows].numpy()), self._text[1])
        return pl.DataFrame({"item_id": ids, "weight": target.weight_E[rows].numpy()})

    def activity(self) -> pl.DataFrame:
        """user_id and n_items, how many items each known user has by the target behaviour."""
        sizes = self._live.graph.target.start_U.diff().numpy()
        return pl.DataFrame({"user_id": _given(self.users.ids, self._text[0]), "n_items": sizes})

    def update(self, events: Any, *, columns: Mapping[str, str] | None = None) -> dict[str, int]:
        """Let new events count at once. ``events`` is a table like the log; returns what they brought, as counts.

        As after a new fit on all events: seen items, popularity, the histories that answers are made from, and all of
        the model ``popular``. As the last fit left it: everything learned (item vectors, item-to-item weights,
        neighbours), and the set of items. Users with events here, known or new, are from now on scored by folding in
        their whole history; for models that are linear in items that is exactly what a new fit would answer with the
        old item-to-item weights. Neither the order of events nor their cut into updates matters. Events of items
        unknown to the model are passed over, and counted. Costs one pass over the log.
        """
        frame = read_table(events, columns, "update")
        users, graph = self._fitted
        names = [behavior.name for behavior in graph.behaviors]
        if "behavior" not in frame.columns:
            frame = frame.with_columns(behavior=pl.lit(names[-1]))
        for name in frame["behavior"].cast(pl.String).unique().to_list():
            if name not in names:
                raise DataError(f"update: unknown behaviour {name!r}; allowed are {', '.join(map(repr, names))}")
        if "weight" not in frame.columns:
            frame = frame.with_columns(weight=pl.lit(1.0))
        frame = frame.with_columns(pl.col("weight").cast(pl.Float64, strict=False), pl.col("behavior").cast(pl.String))
        if not frame["weight"].is_between(0, np.inf, closed="left").fill_null(False).all():
            raise DataError("update: a weight is not a finite number of at least 0")
        user_id = frame["user_id"].cast(users.ids.dtype, strict=False)
        if user_id.null_count():
            strange = frame["user_id"].filter(user_id.is_null())[0]
            raise DataError(f"update: user id {strange!r} is not {'text' if users.is_text else 'an integer'}")
        item = self.items.numbers(frame["item_id"])
        known = pl.Series(item >= 0, dtype=pl.Boolean)
        new = pl.DataFrame(
            {
                "user_id": user_id.filter(known),
                "item_id": self.items.ids_of(item[item >= 0]),
                "behavior": frame["behavior"].filter(known),
                "weight": frame["weight"].filter(known),
            }
        )
        before = len(self.users)
        self._live = after(users, graph, self.items, pl.concat([self._live.events, new]))
        self.module.refresh(self._live.graph)
        return {
            "events": len(new),
            "users": new["user_id"].n_unique(),
            "new_users": len(self.users) - before,
            "unknown_items": len(frame) - len(new),
        }

    def save(self, folder: str | Path) -> Path:
        """Write a bundle: model, ids, histories, and the events since the fit. No pickle in it."""
        users, graph = self._fitted
        kept = {"text": list(self._text), "events": self._live.events.to_dict(as_series=False)}
        return Bundle.save(folder, self.module, graph, users, self.items, {"recommender": kept})

    def _users_asked(self, ids: Ids, unknown: str) -> tuple[pl.Series, Numbers]:
        """Ids as they are given back, and numbers; unknown users have -1 where they are not skipped."""
        return _asked(self.users, ids, "user", unknown, self._text[0])

    def _items_asked(self, ids: Ids, unknown: str) -> tuple[pl.Series, Numbers]:
        return _asked(self.items, ids, "item", "skip" if unknown == "fallback" else unknown, self._text[1])

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
                value: _given(vocab.ids_of(items_BK[row, rank]), text),
                "score": scores_BK[row, rank],
                "rank": rank + 1,
            }
        )


def _repeat(path: npt.NDArray[np.str_], found: Ranking) -> pl.Series:
    return pl.Series(np.repeat(path, (found[0] >= 0).sum(1)).tolist(), dtype=pl.String)


def _check(k: int, unknown: str, legal: tuple[str, ...] = get_args(Unknown)) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UserError(f"k must be a whole number of at least 1; got {k!r}")
    if unknown not in legal:
        raise UserError(f"unknown must be one of {', '.join(legal)}; got {unknown!r}")


def _asked(vocab: Vocab, ids: Ids, what: str, unknown: str, text: bool) -> tuple[pl.Series, Numbers]:
    if isinstance(ids, str | bytes | int):
        raise UserError(f"{what}s: give a list of ids, such as [{ids!r}]")
    series = ids if isinstance(ids, pl.Series) else pl.Series("id", ids, strict=False)
    number = _numbers(vocab, series, what, unknown)
    if unknown == "skip":
        series, number = series.filter(pl.Series(number >= 0, dtype=pl.Boolean)), number[number >= 0]
    if (number >= 0).all():
        return _given(vocab.ids_of(number), text), number
    typed = series.cast(pl.String if text else vocab.ids.dtype, strict=False)
    return (series.cast(pl.String) if typed.null_count() > series.null_count() else typed), number


def _numbers(vocab: Vocab, ids: pl.Series, what: str, unknown: str) -> Numbers:
    number = vocab.numbers(ids)
    if unknown == "error" and (number < 0).any():
        first, n = ids.filter(pl.Series(number < 0))[0], int((number < 0).sum())
        more = f" (and {n - 1:,} more)" if n > 1 else ""
        raise UserError(
            f"unknown {what} id {first!r}{more}; there are {len(vocab):,} {what}s, such as {vocab.ids[0]!r}"
        )
    return number


def _given(ids: pl.Series, text: bool) -> pl.Series:
    return ids.cast(pl.String) if text else ids
