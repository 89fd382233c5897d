"""Which parts does a run learn from and is measured on? Those of a log on disk, or of a market made on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from macrorec import configs
from macrorec.data.log import Behavior, Split
from macrorec.data.market import BEHAVIORS, MarketConfig
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.data.sources.home import folders
from macrorec.data.sources.opening import Part
from macrorec.data.sources.source import Source, read
from macrorec.data.split import SplitConfig, split
from macrorec.data.synthetic import SUMMARY, write_market


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic:
    """A synthetic market, written to the data folder when it is first asked for."""

    market: MarketConfig = field(default_factory=MarketConfig)
    """Its size and habits."""
    market_seed: int = 0
    """Seed of the market itself, whatever the seed of the run."""


def read_split(source: Source | Synthetic, preparation: PrepareConfig, cuts: SplitConfig, *, seed: int) -> Split:
    """The parts of ``source``; random cuts draw from ``seed``."""
    log = on_disk(source) if isinstance(source, Synthetic) else source
    there: dict[Part, str | None] = {"train": log.path, "valid": log.valid, "test": log.test}
    frames: dict[str, pl.LazyFrame] = {part: read(log, part) for part, path in there.items() if path is not None}
    return split(prepare(frames, log.behaviors, preparation), cuts, seed=seed)


def on_disk(source: Synthetic) -> Source:
    """The log of a market; its folder's name holds the hash of all that decides its content."""
    folder = folders()[0] / "markets" / configs.hash8(configs.plain(source))
    if not (folder / SUMMARY).is_file():
        write_market(source.market, folder, source.market_seed)
    *auxiliary, target = BEHAVIORS
    behaviors = (*(Behavior(name=name, role="auxiliary", mask=False) for name in auxiliary), Behavior(name=target))
    return Source(path=str(folder / "log.parquet"), time_unit="s", behaviors=behaviors)
