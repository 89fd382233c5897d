from pathlib import Path

import pytest

from macrorec.data.log import Behavior, Split
from macrorec.data.market import MarketConfig
from macrorec.data.prepare import PrepareConfig
from macrorec.data.sources.source import Source
from macrorec.data.split import LeaveLastOne, LeaveOneOut, Nothing, SplitConfig
from macrorec.inputs import Synthetic, on_disk, read_split

SMALL = MarketConfig(users=60, items=40, events=2_000, groups=3, clusters=4, categories=5, days=10)


def test_a_market_is_made_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROREC_DATA", str(tmp_path))
    source = on_disk(Synthetic(market=SMALL))
    written = Path(source.path).stat().st_mtime_ns
    assert on_disk(Synthetic(market=SMALL)) == source and Path(source.path).stat().st_mtime_ns == written
    assert on_disk(Synthetic(market=SMALL, market_seed=1)).path != source.path
    cuts = SplitConfig(test=LeaveLastOne(), valid=LeaveLastOne())
    parts = read_split(Synthetic(market=SMALL), PrepareConfig(), cuts, seed=0)
    assert [(b.name, b.role, b.mask) for b in parts.behaviors] == [
        ("view", "auxiliary", False),
        ("cart", "auxiliary", False),
        ("buy", "target", True),
    ]
    assert len(parts.train) > len(parts.test) > 0


def test_extra_rows_join_train_before_it_is_cut_and_repeats_count_once(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item,behavior\nu,a,view\nu,b,buy\nv,a,buy\n")
    (tmp_path / "more.csv").write_text("user,item,behavior\nu,a,view\nv,c,buy\nw,a,view\n")
    schema = (Behavior(name="view", role="auxiliary", mask=False), Behavior(name="buy"))
    source = Source(path=str(tmp_path / "train.csv"), extra=(str(tmp_path / "more.csv"),), behaviors=schema)
    cuts = SplitConfig(test=LeaveOneOut(), valid=Nothing(), vocabulary="all")

    def events(parts: Split) -> list[set[tuple[str, str, str]]]:
        return [
            {
                (str(rows.users.ids[int(u)]), str(rows.items.ids[int(i)]), rows.behaviors[b].name)
                for u, i, b in zip(rows.user, rows.item, rows.behavior, strict=True)
            }
            for rows in (parts.train, parts.valid, parts.test)
        ]

    parts = read_split(source, PrepareConfig(), cuts, seed=0)
    train, _, test = events(parts)
    assert len(parts.train) == 4 and train | test == {
        ("u", "a", "view"),
        ("w", "a", "view"),
        ("u", "b", "buy"),
        ("v", "a", "buy"),
        ("v", "c", "buy"),
    }
    assert test <= {("v", "a", "buy"), ("v", "c", "buy")} and len(test) == 1, "v has two purchases only with both files"
    every = read_split(source, PrepareConfig(dedupe="none"), cuts, seed=0)
    assert len(every.train) == 5
