"""Which parts does a run learn from and is measured on? Those of a log on disk, or of a market made on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isqrt

import numpy as np
import polars as pl

from macrorec import configs
from macrorec.data.catalog import read_catalog
from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.market import BEHAVIORS, MarketConfig
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.data.sources.home import folders
from macrorec.data.sources.opening import Part
from macrorec.data.sources.source import Source, read
from macrorec.data.split import SplitConfig, split
from macrorec.data.synthetic import SUMMARY, write_market
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.eval.links import pairs_over
from macrorec.graph.features import FeatureConfig, FeatureSet, feature_set
from macrorec.graph.groups import ByKMeans


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic:
    """A synthetic market, written to the data folder when it is first asked for."""

    market: MarketConfig = field(default_factory=MarketConfig)
    """Its size and habits."""
    market_seed: int = 0
    """Seed of the market itself, whatever the seed of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkSource(Source):
    """A log whose split for link prediction was published with the pairs that a probe is fitted to."""

    probe: str
    """Labelled pairs, ``user_id, item_id, label``: edges of train (1) and non-edges (0). They make no graph."""


def read_split(source: Source | Synthetic, preparation: PrepareConfig, cuts: SplitConfig, *, seed: int) -> Split:
    """The parts of ``source``; random cuts draw from ``seed``."""
    log = on_disk(source) if isinstance(source, Synthetic) else source
    there: dict[Part, str | None] = {"train": log.path, "valid": log.valid, "test": log.test}
    frames: dict[str, pl.LazyFrame] = {part: read(log, part) for part, path in there.items() if path is not None}
    return split(prepare(frames, log.behaviors, preparation), cuts, seed=seed)


def read_probe(source: Source | Synthetic, like: Interactions) -> Interactions | None:
    """The pairs that a probe is fitted to, over the vocabularies of ``like``; None where none were published."""
    if not isinstance(source, LinkSource):
        return None
    frame = read(replace(source, path=source.probe, extra=())).sort("row").collect()
    if "label" not in frame.columns:
        raise DataError(f"{source.probe}: a probe needs labelled pairs, and there is no column 'label'")
    return pairs_over(frame, like, source.probe)


def read_features(source: Source | Synthetic, config: FeatureConfig, parts: Split, *, seed: int) -> FeatureSet:
    """What a ranker learns from and is measured on: the samples of ``parts``, which are of ``source``."""
    log = on_disk(source) if isinstance(source, Synthetic) else source
    return feature_set(parts, config, read_catalog(log, parts.items), seed=seed)


def features_of_log(events: Interactions, config: FeatureConfig | None = None, *, seed: int = 0) -> FeatureSet:
    """What a ranker learns from where all of ``events`` is train.

    By default, what a live server would have known of each impression in the later half; up to 20 groups by k-means on
    either side, at most the root of the number of nodes; in a log without labels one item is drawn per positive. Events
    without times are taken in a random order. Raises DataError for ratings that have not been made labels.
    """
    if events.label is not None and len(known := events.label[~np.isnan(events.label)]):
        low, high = known.min(), known.max()
        if low < 0 or high > 1:
            raise DataError(f"ratings run from {low:g} to {high:g}: say which are positives, such as positive={high:g}")
    if config is None:
        users, items = (ByKMeans(n=max(1, min(20, isqrt(len(vocab))))) for vocab in (events.users, events.items))
        negatives = 0 if events.label is not None else 1
        config = FeatureConfig(kind="as_of", history=0.5, users=users, items=items, negatives=negatives)
    if events.time is None:
        order = np.random.default_rng(seed).permutation(len(events))
        events = replace(events.take(order), time=np.arange(len(events)))
    none = events.take(np.arange(0))
    return feature_set(Split(train=events, valid=none, test=none, protocol={}), config, None, seed=seed)


def titles_of(source: Source | Synthetic, items: Vocab) -> pl.Series | None:
    """A name per item for people, where the source has any."""
    catalog = None if isinstance(source, Synthetic) else read_catalog(source, items)
    return None if catalog is None else catalog.titles


def on_disk(source: Synthetic) -> Source:
    """The log of a market; its folder's name holds the hash of all that decides its content."""
    folder = folders()[0] / "markets" / configs.hash8(configs.plain(source))
    if not (folder / SUMMARY).is_file():
        write_market(source.market, folder, source.market_seed)
    *auxiliary, target = BEHAVIORS
    behaviors = (*(Behavior(name=name, role="auxiliary", mask=False) for name in auxiliary), Behavior(name=target))
    return Source(path=str(folder / "log.parquet"), time_unit="s", behaviors=behaviors)
