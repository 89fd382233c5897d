"""What items are called."""

from pathlib import Path

import polars as pl
import pytest
from tests.serve import market

from macrorec.bundle import Bundle
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import build
from macrorec.serve.catalogue import Catalogue
from macrorec.serve.deployment import Deployment


@pytest.mark.parametrize("own", [True, False])
def test_titles_are_the_retrievers_or_else_the_rankers(tmp_path: Path, own: bool) -> None:
    log = market.interactions()
    graph, known = market.graph_of(log), {"prepare": {"binary": None}}
    others = Vocab([f"i{n}" if n else "another" for n in range(market.N_ITEMS)])  # the ranker has never seen i0
    called = pl.Series([f"ranker's {n}" for n in range(market.N_ITEMS)])
    inner = Bundle.save(
        tmp_path / "inner", market.fitted("macgnn", graph), graph, log.users, others, known, titles=called
    )
    titles = pl.Series([None, "own 1", *[None] * (market.N_ITEMS - 2)], dtype=pl.String) if own else None
    plain = build(log)
    fitted = market.fitted("bpr", plain), plain, log.users, log.items, known
    folder = Bundle.save(tmp_path / "shop", *fitted, titles=titles, ranker=inner)
    deployment = Deployment.load(folder)
    catalogue = Catalogue(deployment, None)
    deployment.close()
    expected = [None, "own 1", None] if own else [None, *(f"ranker's {n}" for n in (1, 2))]
    assert [catalogue.title(n) for n in range(3)] == expected
    catalogue.retitle(0, "announced")
    assert catalogue.title(0) == "announced"
