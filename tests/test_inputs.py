from pathlib import Path

import pytest

from macrorec.data.market import MarketConfig
from macrorec.data.prepare import PrepareConfig
from macrorec.data.split import LeaveLastOne, SplitConfig
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
