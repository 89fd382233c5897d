"""Which k items does a model rank first for each user? Exact top-k in blocks, never users x items.

Shape letters: B users asked for, U all users, I items, C candidates, D embedding, K ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.api import Model, TwoTower
from macrorec.errors import ConfigError, DataError

BLOCK_BYTES = 1 << 28
"""Scores held at once where no block size is given: 256 MiB."""
TILE = 128
"""Users multiplied at once with the item vectors. Fixed, so that a score does not depend on the caller's block."""

Numbers = npt.NDArray[np.int64]
Ranking = tuple[Numbers, npt.NDArray[np.float32]]
"""Items (B, K), int64, -1 where none is left, and their scores, float32, -inf where none is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """What to measure and how."""

    protocol: Literal["ranking", "links", "ctr"] = "ranking"
    """``ranking``: all items per user; ``links``: labelled pairs by direct scores; ``ctr``: labelled impressions."""
    metrics: tuple[str, ...] = ("recall@20", "ndcg@20")
    """Names as in ``macrorec metrics``, all of the protocol."""
    mask: Literal["behaviors", "none"] = "behaviors"
    """``behaviors``: leave out items a user knows by a behaviour whose ``mask`` is set; ``none``: rank everything."""
    block: int | None = None
    """Users scored at once; None lets memory decide. It never changes a result."""
    negatives: int = 1
    """Links without labels: non-edges drawn per edge."""
    negative_seed: int = 0
    """Links without labels: seed of that draw."""

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise ConfigError(f"eval.block must be at least 1, got {self.block}")
        if self.negatives < 1:
            raise ConfigError(f"eval.negatives must be at least 1, got {self.negatives}")


def top_k(
    model: Model,
    users: npt.ArrayLike | Tensor,
    k: int,
    masked: sp.csr_matrix | None = None,
    *,
    block: int | None = None,
    candidates: npt.ArrayLike | Tensor | None = None,
) -> Ranking:
    """The k best items of each of ``users`` (numbers, shape (B,)), by (-score, item number).

    ``masked`` is a (U, I) pattern of items never to be ranked; ``candidates`` (C,) restricts to some items. Items at
    -inf are unreachable. Raises DataError if the model answers NaN.
    """
    users_B = _numbers(users)
    pool_C = None if candidates is None else np.unique(_numbers(candidates))
    mask = None if masked is None else sp.csr_matrix(masked)[users_B]
    with evaluating(model):
        if isinstance(model, TwoTower):
            users_UD, items_ID = model.encode()
            rows = users_UD[torch.from_numpy(users_B).to(users_UD.device)]
            return top_k_vectors(rows, items_ID, k, mask, block=block, candidates=pool_C)
        device = device_of(model)
        columns_C = None if pool_C is None else torch.from_numpy(pool_C).to(device)

        def score(start: int, stop: int) -> Tensor:
            scores_BI = model.score_all(torch.from_numpy(users_B[start:stop]).to(device))
            return scores_BI if columns_C is None else scores_BI[:, columns_C]

        items_BK, best_BK = _empty(len(users_B), k)
        step = block or _block(model)
        starts = mask_rows(mask, len(users_B), pool_C)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for start in range(0, len(users_B), step):
                stop = min(start + step, len(users_B))
                _select(score(start, stop), starts, slice(start, stop), items_BK, best_BK, pool)
        return _named(items_BK, pool_C), best_BK


def top_k_vectors(
    users_BD: Tensor,
    items_ID: Tensor,
    k: int,
    masked: sp.csr_matrix | None = None,
    *,
    block: int | None = None,
    candidates: npt.ArrayLike | Tensor | None = None,
) -> Ranking:
    """The k items of largest inner product with each user vector, by (-score, item number).

    ``masked`` is a (B, I) pattern, row b for users_BD[b]; ``candidates`` (C,) restricts to some items. Raises DataError
    on NaN.
    """
    pool_C = None if candidates is None else np.unique(_numbers(candidates))
    users_BD, items_ID = users_BD.detach().float(), items_ID.detach().float()
    if pool_C is not None:
        items_ID = items_ID[torch.from_numpy(pool_C).to(items_ID.device)]
    n = len(users_BD)
    items_BK, best_BK = _empty(n, k)
    starts = mask_rows(masked, n, pool_C)
    tile_TD = users_BD.new_zeros(TILE, users_BD.shape[1])
    scores_TI = users_BD.new_empty(TILE, len(items_ID))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, n, TILE):
            stop = min(start + TILE, n)
            tile_TD[: stop - start] = users_BD[start:stop]
            torch.mm(tile_TD, items_ID.T, out=scores_TI)
            _select(scores_TI[: stop - start], starts, slice(start, stop), items_BK, best_BK, pool)
    return _named(items_BK, pool_C), best_BK


def mask_rows(masked: sp.csr_matrix | None, n_rows: int, pool_C: Numbers | None) -> tuple[Numbers, npt.NDArray[Any]]:
    """CSR of the masked columns of each row, ascending, in the numbering of the candidates if there are any."""
    if masked is None:
        return np.zeros(n_rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    masked = sp.csr_matrix(masked)
    if pool_C is not None:
        masked = masked[:, pool_C]
    if not masked.has_sorted_indices:
        masked = masked.sorted_indices()
    assert masked.shape[0] == n_rows, (masked.shape, n_rows)
    return masked.indptr.astype(np.int64), masked.indices.astype(np.int32)


def _select(
    scores_BI: Tensor,
    mask: tuple[Numbers, npt.NDArray[Any]],
    rows: slice,
    items_BK: Numbers,
    best_BK: npt.NDArray[np.float32],
    pool: ThreadPoolExecutor,
) -> None:
    """Select from one block of scores into the rows of the answer."""
    from macrorec.eval.topk import select

    scores = scores_BI.detach().float().cpu().numpy()
    starts, masked_E = mask
    share = -(-len(scores) // (4 * pool._max_workers))

    def part(begin: int) -> int:
        end = min(begin + share, len(scores))
        a, b = rows.start + begin, rows.start + end
        bad = select(scores[begin:end], starts[a : b + 1], masked_E, items_BK[a:b], best_BK[a:b])
        return -1 if bad < 0 else a + int(bad)

    bad = max(pool.map(part, range(0, len(scores), share)), default=-1)
    if bad >= 0:
        raise DataError(
            "the model's scores hold NaN; it diverged or its weights are damaged: retrain with a smaller lr"
        )


def device_of(model: Model) -> torch.device:
    """Where the model's parameters or buffers live; the CPU if it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """No gradients, evaluation mode; the model's mode is put back afterwards."""
    was = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in was:
            module.training = training


def _block(model: Model) -> int:
    """Users per block: one (B, I) array of BLOCK_BYTES, or much less where every pair is scored by itself."""
    by_pairs = type(model).score_all is Model.score_all
    per_user = 4 * max(model.n_items, 1) * (256 if by_pairs else 1)
    return max(1, min(4096, BLOCK_BYTES // per_user))


def _empty(n_rows: int, k: int) -> Ranking:
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    return np.empty((n_rows, k), dtype=np.int64), np.empty((n_rows, k), dtype=np.float32)


def _numbers(values: npt.ArrayLike | Tensor) -> Numbers:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.ascontiguousarray(array, dtype=np.int64)


def _named(columns_BK: Numbers, pool_C: Numbers | None) -> Numbers:
    """Column numbers back to item numbers."""
    if pool_C is None or not len(pool_C):
        return columns_BK
    return np.where(columns_BK >= 0, pool_C[columns_BK], -1)
