"""Which k items does a model rank first for each user? Exact top-k in blocks, never users x items.

Shape letters: B users asked for, U all users, I items, C candidates, D embedding, K ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from macrorec.eval.vectors import (
    NAN,
    Ranking,
    check_k,
    empty,
    mask_rows,
    named,
    numbers_of,
    rows_of,
    select_by_key,
)
from macrorec.eval.vectors import top_k_vectors as top_k_vectors
from macrorec.ops.threads import in_parts

BLOCK_BYTES = 1 << 28
"""Scores held at once where no block size is given: 256 MiB."""
SELECT_CHUNK = 32
"""Score rows of one unit of work of a thread."""


MaskPolicy = Literal["behaviors", "every", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """What to measure and how."""

    protocol: Literal["ranking", "links", "ctr"] = "ranking"
    """``ranking``: all items per user; ``links``: labelled pairs by direct scores; ``ctr``: labelled impressions."""
    metrics: tuple[str, ...] = ("recall@20", "ndcg@20")
    """Names as in ``macrorec metrics``, all of the protocol. Where the log has auxiliary behaviours, a ranking is
    measured for both cohorts of held-out items, too."""
    mask: MaskPolicy = "behaviors"
    """Rankings leave out items that a user knows by a behaviour whose ``mask`` is set (``behaviors``), by any behaviour
    (``every``), or rank everything (``none``)."""
    block: int | None = None
    """Users scored at once, where the model has no vectors; None lets memory decide."""
    negatives: int = 1
    """Links without labels: non-edges drawn per edge."""
    negative_seed: int = 0
    """Links without labels: seed of that draw."""
    samples: Literal["all", "warm"] = "all"
    """Clicks: whether ``all`` impressions make the metrics, or ``warm`` ones: user and item have positive history."""

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
    -inf are unreachable. Vectors of a ``TwoTower`` are made once; other models score ``block`` users at a time. Raises
    DataError if the model answers NaN.
    """
    check_k(k)
    users_B = numbers_of(users)
    mask = None if masked is None else sp.csr_matrix(masked)[users_B]
    with evaluating(model):
        if isinstance(model, TwoTower):
            users_UD, items_ID = model.encode()
            rows_BD = users_UD[torch.from_numpy(users_B).to(users_UD.device)]
            return top_k_vectors(rows_BD, items_ID, k, mask, candidates=candidates)
        pool_C = None if candidates is None else np.unique(numbers_of(candidates))
        rows = mask_rows(mask, len(users_B), pool_C)
        device = device_of(model)
        columns_C = None if pool_C is None else torch.from_numpy(pool_C).to(device)
        items_BK, best_BK = empty(len(users_B), k)
        step = block or _block(model)
        for start in range(0, len(users_B), step):
            stop = min(start + step, len(users_B))
            block_B = torch.from_numpy(users_B[start:stop]).to(device)
            scores_BC = model.score_all(block_B) if columns_C is None else model.score_some(block_B, columns_C)
            answer = select_rows(scores_BC, k, *rows_of(rows, start, stop))
            items_BK[start:stop], best_BK[start:stop] = answer
        return named(items_BK, best_BK, pool_C)


def select_rows(scores_BI: Tensor, k: int, start_B: npt.NDArray[np.int64], masked_E: npt.NDArray[Any]) -> Ranking:
    """The k best columns of each row of scores, those in the CSR mask left out. Raises DataError on NaN."""
    if scores_BI.device.type != "cpu":
        return select_by_key(scores_BI, k, start_B, masked_E)
    from macrorec.eval.topk import select

    scores = scores_BI.detach().float().numpy()
    items_BK, best_BK = empty(len(scores), k)

    def part(a: int, b: int) -> None:
        if select(scores[a:b], start_B[a : b + 1], masked_E, items_BK[a:b], best_BK[a:b]) >= 0:
            raise DataError(NAN)

    in_parts(part, [*range(0, len(scores), SELECT_CHUNK), len(scores)])
    return items_BK, best_BK


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
