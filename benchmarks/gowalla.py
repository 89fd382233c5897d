"""What do the evaluation benchmarks rank? Gowalla's edges, or random ones of the same size, and vectors for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.api import TwoTower
from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph

N_USERS, N_ITEMS, N_TRAIN, N_TEST = 29_858, 40_981, 810_128, 217_242
Pairs = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


def split() -> tuple[Split, str]:
    """The split, and where its edges come from: ``gowalla``, or ``synthetic`` where the files are missing."""
    home = os.environ.get("MACROREC_DATA")
    folder = Path(home) if home else Path(__file__).resolve().parents[2] / "shared" / "data"
    files = [folder / "gowalla" / name for name in ("train.txt", "test.txt")]
    if all(file.is_file() for file in files):
        (train, test), origin = (_lists(file) for file in files), "gowalla"
    else:
        (train, test), origin = _drawn(), "synthetic"
    users, items = Vocab(np.arange(N_USERS)), Vocab(np.arange(N_ITEMS))

    def part(pairs: Pairs) -> Interactions:
        return Interactions(users, items, (Behavior(name="check-in"),), *pairs, np.zeros(len(pairs[0]), dtype=np.int8))

    nothing = np.zeros(0, dtype=np.int32)
    return Split(part(train), part((nothing, nothing)), part(test), protocol={"source": origin}), origin


def _lists(file: Path) -> Pairs:
    rows = [np.array(line.split(), dtype=np.int32) for line in file.read_text().splitlines()]
    return np.concatenate([np.full(len(row) - 1, row[0]) for row in rows]), np.concatenate([row[1:] for row in rows])


def _drawn() -> tuple[Pairs, Pairs]:
    """Distinct pairs with a power law over items; every user occurs."""
    rng = np.random.default_rng(0)
    n = N_TRAIN + N_TEST
    user = np.concatenate([np.arange(N_USERS), rng.integers(N_USERS, size=2 * n)])
    item = (N_ITEMS * rng.random(len(user)) ** 3).astype(np.int64)
    _, first = np.unique(user * N_ITEMS + item, return_index=True)
    keep = np.sort(first)[:n]
    last = np.ones(n, dtype=bool)
    last[:N_TRAIN] = False
    drawn = user[keep].astype(np.int32), item[keep].astype(np.int32)
    return (drawn[0][~last], drawn[1][~last]), (drawn[0][last], drawn[1][last])


class Fixed(TwoTower):
    """Given vectors."""

    def __init__(self, graph: Graph, users_UD: Tensor, items_ID: Tensor) -> None:
        super().__init__(None, graph)
        self.register_buffer("users_UD", users_UD)
        self.register_buffer("items_ID", items_ID)

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.get_buffer("users_UD"), self.get_buffer("items_ID")


def gaussian(dim: int) -> tuple[Tensor, Tensor]:
    """Independent normal vectors: all norms alike, the worst case of a search that is bounded by norms."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N_USERS, dim, generator=generator), torch.randn(N_ITEMS, dim, generator=generator)


def factors(graph: Graph, dim: int) -> tuple[Tensor, Tensor]:
    """Truncated SVD of the train matrix: norms spread with popularity, as those of fitted models do."""
    from scipy.sparse.linalg import svds

    left, values, right = svds(graph.target.csr(N_ITEMS).astype(np.float64), dim, rng=np.random.default_rng(0))
    vectors = (left * values, right.T)
    users_UD, items_ID = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in vectors)
    return users_UD, items_ID
