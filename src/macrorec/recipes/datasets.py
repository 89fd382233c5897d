"""On which data, split how, and measured by what? One function per data set; each takes a model and how to train it.

Every split names its published protocol. Valid is ours wherever the publication has none: it is taken out of train, the
model is chosen and stopped by it, and then refitted on train and valid together, so that test meets all of train.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from macrorec.data.log import Behavior
from macrorec.data.prepare import PrepareConfig
from macrorec.data.sources.source import Source
from macrorec.data.split import Given, LeaveLastOne, LeaveOneOut, Nothing, RandomFraction, SplitConfig, TimeQuantile
from macrorec.eval.links import PROBES
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.features import FeatureConfig
from macrorec.graph.groups import ByKMeans, Grouping
from macrorec.inputs import LinkSource, Synthetic
from macrorec.run import RunConfig, ranks, retrieves
from macrorec.train.trainer import TrainConfig

ML_100K = Source(
    path="ml-100k/ml-100k.inter",
    time_unit="s",
    items="ml-100k/ml-100k.item",
    category="class",
    title="movie_title",
)
"""MovieLens 100K with its genres and titles."""

CLOSED_FORM = TrainConfig(epochs=1, monitor=None, patience=None)
"""For models that are solved, not trained: nothing of it is used."""


def ml_100k_u1(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """MovieLens 100K, split u1: 80,000 / 19,968 ratings, all of them positives. CCBIE, Table II."""
    return RunConfig(
        source=Source(path="ml-100k-u1/train.txt", test="ml-100k-u1/test.txt"),
        split=SplitConfig(test=Given(), valid=RandomFraction(fraction=0.1), vocabulary="train+valid"),
        model=model,
        train=train,
        eval=EvalConfig(metrics=("ndcg@10", "recall@10", "ndcg_full@10", "ndcg@3", "recall@3")),
        refit=True,
    )


def dblp(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """DBLP: 17,699 edges; test rows of an item outside train are dropped, 2,978 users remain. CCBIE, Table II."""
    return replace(
        ml_100k_u1(model, train),
        source=Source(path="dblp/train.txt", test="dblp/test.txt"),
        eval=EvalConfig(metrics=("ndcg@10", "recall@10", "ndcg@3", "recall@3", "ndcg@5", "recall@5")),
    )


def ml_100k(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """MovieLens 100K with times: a user's last rating is test, the one before is valid; all are positives."""
    return RunConfig(
        source=Source(path="ml-100k/ml-100k.inter", time_unit="s"),
        split=SplitConfig(test=LeaveLastOne(), valid=LeaveLastOne(), vocabulary="train+valid"),
        model=model,
        train=train,
        eval=EvalConfig(metrics=("hr@10", "ndcg@10", "mrr@10", "recall@20", "ndcg@20")),
        refit=True,
    )


def gowalla(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """Gowalla, LightGCN's split: 810,128 / 217,242 check-ins, 29,858 x 40,981."""
    return RunConfig(
        source=Source(path="gowalla/train.txt", test="gowalla/test.txt"),
        split=SplitConfig(test=Given(), valid=RandomFraction(fraction=0.1), vocabulary="all"),
        model=model,
        train=train,
        eval=EvalConfig(metrics=("recall@20", "ndcg@20")),
        refit=True,
    )


def taobao(model: Any, train: TrainConfig = CLOSED_FORM, *, extra: bool = False) -> RunConfig:
    """Taobao: view, cart, buy; one held-out purchase per user; only purchases of train are masked. MB-CGCN's split.

    ``extra``: train has one more view and one more cart of every user, as in CascadingRank and MULE.
    """
    return RunConfig(
        source=Source(
            path="taobao/train.parquet",
            test="taobao/test.parquet",
            extra=("taobao/auxiliary_extra.parquet",) if extra else (),
            behaviors=(
                Behavior(name="view", role="auxiliary", mask=False),
                Behavior(name="cart", role="auxiliary", mask=False),
                Behavior(name="buy"),
            ),
        ),
        split=SplitConfig(test=Given(), valid=LeaveOneOut(), vocabulary="all"),
        model=model,
        train=train,
        eval=EvalConfig(metrics=("hr@10", "ndcg@10", "hr@20", "ndcg@20", "hr@50", "ndcg@50")),
        refit=True,
    )


def market(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """The synthetic market of ``macrorec demo``: every user's last purchase is test, the one before is valid."""
    return RunConfig(
        source=Synthetic(),
        split=SplitConfig(test=LeaveLastOne(), valid=LeaveLastOne(), vocabulary="train+valid"),
        model=model,
        train=train,
        eval=EvalConfig(metrics=("hr@10", "ndcg@10", "recall@20", "ndcg@20")),
        refit=True,
    )


def wikipedia(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """Wikipedia, links: six of ten edges are train, four and as many fixed non-edges test. CCBIE, Table III.

    The probe's pairs are published, too: a third of train's edges, and as many non-edges.
    """
    return RunConfig(
        source=LinkSource(
            path="wikipedia/train.parquet",
            test="wikipedia/link_test.parquet",
            probe="wikipedia/link_train.parquet",
        ),
        split=SplitConfig(test=Given(), valid=RandomFraction(fraction=0.1, per_user=False), vocabulary="all"),
        model=model,
        train=train,
        eval=EvalConfig(protocol="links", metrics=link_metrics(model)),
        refit=True,
    )


def yelp(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """Yelp, links: 182,357 / 13,025 / 65,128 edges as given, and as many non-edges of one fixed draw.

    CCBIE, Table III, has another draw, and perhaps another cut: its Table I counts the 182,357 edges of train alone.
    """
    return replace(
        wikipedia(model, train),
        source=Source(path="yelp/train.parquet", valid="yelp/valid.parquet", test="yelp/test.parquet"),
        split=SplitConfig(test=Given(), valid=Given(), vocabulary="all"),
    )


def link_metrics(model: Any) -> tuple[str, ...]:
    """Direct scores, and both probes of a model that has vectors."""
    direct = ("auc_roc", "auc_pr")
    return (*direct, *(f"{name}_{probe}" for probe in PROBES for name in direct)) if retrieves(model) else direct


def clicks(source: Source, model: Any, train: TrainConfig, items: Grouping | None = None) -> RunConfig:
    """Ratings of 4 and more are positives, all others negatives. MacGNN's protocol, but for valid, which is ours.

    Events up to the quantile .8 of time are history, those up to .9 train and valid (its last three tenths: with one,
    settings differ by less than valid can tell), the rest test.
    ``items`` stand in for the groups by first category.
    """
    return RunConfig(
        source=source,
        prepare=PrepareConfig(binary=4.0, dedupe="none"),
        split=SplitConfig(test=TimeQuantile(quantile=0.9), valid=TimeQuantile(quantile=0.87 / 0.9), vocabulary="all"),
        model=model,
        train=train,
        eval=EvalConfig(protocol="ctr", metrics=("auc", "gauc", "logloss", "calibration")),
        refit=True,
        features=(FeatureConfig() if items is None else FeatureConfig(items=items)) if ranks(model) else None,
    )


def ctr_ml_100k(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """MovieLens 100K; groups of items are first genres."""
    return clicks(ML_100K, model, train)


def history_ml_100k(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """The likes of MovieLens 100K that ``stream`` has as history, for groups of its items that see nothing later.

    The quantile .512 of the likes' times is the last of three digits before the middle of all events, where that
    history ends. Valid is a tenth of each user's likes of train, test all that come later.
    """
    return RunConfig(
        source=ML_100K,
        prepare=PrepareConfig(positive=4.0, dedupe="none"),
        split=SplitConfig(
            test=TimeQuantile(quantile=0.512), valid=RandomFraction(fraction=0.1), vocabulary="train+valid"
        ),
        model=model,
        train=train,
        eval=EvalConfig(metrics=("ndcg@10", "recall@10")),
        refit=True,
    )


def ctr_amazon(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """Amazon, 6,170 x 2,753; groups of items by k-means, for nearly all have one category."""
    source = Source(path="amazon/ratings.parquet", items="amazon/items.parquet", category="category_ids")
    return clicks(source, model, train, ByKMeans(n=20))


def ctr_yelp(model: Any, train: TrainConfig = CLOSED_FORM) -> RunConfig:
    """Yelp, one year, 43,043 x 66,576, very sparse; groups of items by k-means."""
    source = Source(path="yelp-ratings/ratings.parquet", items="yelp-ratings/items.parquet", category="category_ids")
    return clicks(source, model, train, ByKMeans(n=20))


def stream(config: RunConfig) -> RunConfig:
    """The same rows in test, but each impression sees all that came before it, liked or not; train is all after the
    first half of the events, and valid the tenth before test: settings differ by thousandths of AUC, and the thousand
    impressions of a smaller part tell no more than hundredths."""
    config = replace(config, split=replace(config.split, valid=TimeQuantile(quantile=0.8 / 0.9)))
    if config.features is None:
        return config
    return replace(config, features=replace(config.features, kind="as_of", history=0.5, edges="signed"))


def as_published(config: RunConfig) -> RunConfig:
    """Without valid: all of train is learned from, for a number of epochs, or with settings, fixed beforehand."""
    fixed = replace(config.train, monitor=None, patience=None)
    return replace(config, split=replace(config.split, valid=Nothing()), train=fixed, refit=False)
