"""Which k items have the largest inner product with each user vector? Exact, by tiles, in threads.

Shape letters: B users, I items, C candidates, D embedding, T tiles, W items of a tile, K ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.errors import ConfigError, DataError
from macrorec.ops.threads import in_parts

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64]
Ranking = tuple[Numbers, npt.NDArray[np.float32]]
"""Items (B, K), int64, -1 where none is left, and their scores, float32, -inf where none is left."""

CHUNK = 256
"""Users of one unit of work of a thread."""
DEVICE_ROWS = 1024
"""Users multiplied at once on an accelerator: always this many, so that no score depends on the block."""
TILE_BYTES = 1 << 18
"""One tile of item vectors; it stays in the second-level cache while a chunk of users passes."""
NAN = "the model's scores hold NaN: it diverged or its weights are damaged; fit it again with a smaller lr"


@dataclass(frozen=True, slots=True, eq=False)
class PackedItems:
    """Item vectors in descending order of norm, cut into tiles whose items lie side by side."""

    tiles_TDW: npt.NDArray[np.float32]
    """D padded with zeros to a multiple of 8, items to whole tiles."""
    norm_T: npt.NDArray[np.float64]
    """Upper bound of the norms in each tile, descending."""
    items_I: Numbers
    """Column number at each place."""


def pack(items_ID: Tensor) -> PackedItems:
    """Lay out item vectors for ``top_k_vectors``; worth keeping where many small requests follow."""
    vectors_ID = items_ID.detach().float().cpu().numpy()
    n, dim = vectors_ID.shape
    padded = max(8, -(-dim // 8) * 8)
    width = max(64, min(1024, TILE_BYTES // (4 * padded) // 64 * 64))
    norm_I = upper_norms(vectors_ID)
    order = np.argsort(-norm_I, kind="stable")
    tiles_TDW = np.zeros((-(-n // width), padded, width), dtype=np.float32)
    for t, tile_DW in enumerate(tiles_TDW):
        own = order[t * width : (t + 1) * width]
        tile_DW[:dim, : len(own)] = vectors_ID[own].T
    return PackedItems(tiles_TDW, norm_I[order[::width]], order.astype(np.int64))


def upper_norms(vectors_ND: Array) -> npt.NDArray[np.float64]:
    """Euclidean norm of each row, raised by the rounding of float32 inner products; DataError unless all are finite.

    A sum of D products is off by less than D 2^-24 |u| |v| (Higham 2002, eq. 3.5), plus what underflow loses.
    """
    squares_N: npt.NDArray[np.float64] = np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64)
    if not np.isfinite(squares_N).all():
        raise DataError(NAN)
    norms_N: npt.NDArray[np.float64] = np.sqrt(squares_N) * (1 + vectors_ND.shape[1] * 2.0**-23) + 1e-20
    return norms_N


def top_k_vectors(
    users_BD: Tensor,
    items_ID: Tensor | PackedItems,
    k: int,
    masked: sp.csr_matrix | None = None,
    *,
    candidates: npt.ArrayLike | Tensor | None = None,
) -> Ranking:
    """The k items of largest inner product with each user vector, by (-score, item number).

    ``masked`` is a (B, I) pattern, row b for users_BD[b]; ``candidates`` (C,) restricts to some items. Raises DataError
    on vectors with NaN or infinity.
    """
    check_k(k)
    users_BD = users_BD.detach().float()
    pool_C = None if candidates is None else np.unique(numbers_of(candidates))
    if pool_C is not None:
        assert isinstance(items_ID, Tensor), "candidates are cut out of vectors that are not packed"
        items_ID = items_ID[torch.from_numpy(pool_C).to(items_ID.device)]
    mask = mask_rows(masked, len(users_BD), pool_C)
    if users_BD.device.type != "cpu":
        assert isinstance(items_ID, Tensor), "packed items serve the CPU"
        return named(*_on_device(users_BD, items_ID.detach().float(), k, mask), pool_C)
    packed = items_ID if isinstance(items_ID, PackedItems) else pack(items_ID)
    return named(*_search(users_BD, packed, k, mask), pool_C)


def _search(users_BD: Tensor, packed: PackedItems, k: int, mask: tuple[Numbers, Array]) -> Ranking:
    from macrorec.eval.topk import search

    n, padded = len(users_BD), packed.tiles_TDW.shape[1]
    vectors_BD = np.zeros((n, padded), dtype=np.float32)
    vectors_BD[:, : users_BD.shape[1]] = users_BD.numpy()
    norm_B = upper_norms(vectors_BD)
    starts, masked_E = mask
    items_BK, best_BK = empty(n, k)

    def part(a: int, b: int) -> None:
        nan = search(
            vectors_BD[a:b],
            norm_B[a:b],
            packed.tiles_TDW,
            packed.norm_T,
            packed.items_I,
            starts[a : b + 1],
            masked_E,
            items_BK[a:b],
            best_BK[a:b],
        )
        if nan >= 0:
            raise DataError(NAN)

    in_parts(part, [*range(0, n, CHUNK), n])
    return items_BK, best_BK


def _on_device(users_BD: Tensor, items_ID: Tensor, k: int, mask: tuple[Numbers, Array]) -> Ranking:
    items_BK, best_BK = empty(len(users_BD), k)
    rows_RD = users_BD.new_zeros(DEVICE_ROWS, users_BD.shape[1])
    for start in range(0, len(users_BD), DEVICE_ROWS):
        stop = min(start + DEVICE_ROWS, len(users_BD))
        rows_RD[: stop - start] = users_BD[start:stop]
        scores_BI = (rows_RD @ items_ID.T)[: stop - start]
        items_BK[start:stop], best_BK[start:stop] = select_by_key(scores_BI, k, *rows_of(mask, start, stop))
    return items_BK, best_BK


def select_by_key(scores_BI: Tensor, k: int, start_B: Numbers, masked_E: Array) -> Ranking:
    """The k best columns of each row on any device: ``torch.topk`` over integers that hold (score, -column).

    Float bits, negative ones flipped, order as the floats do; with the column's complement below them no two keys tie.
    """
    device = scores_BI.device
    scores_BI = scores_BI.detach().float() + 0.0  # a copy, in which -0 became 0
    row_E = np.repeat(np.arange(len(scores_BI)), np.diff(start_B))
    places = (torch.from_numpy(x.astype(np.int64)).to(device) for x in (row_E, masked_E[start_B[0] : start_B[-1]]))
    if bool(torch.isnan(scores_BI).any()):
        raise DataError(NAN)
    scores_BI[tuple(places)] = -torch.inf
    bits_BI = scores_BI.view(torch.int32).long()
    bits_BI = torch.where(bits_BI < 0, bits_BI ^ 0x7FFFFFFF, bits_BI)
    low_I = 0xFFFFFFFF - torch.arange(scores_BI.shape[1], device=device)
    best_BK = ((bits_BI << 32) | low_I).topk(min(k, scores_BI.shape[1]), dim=1).values
    column_BK = 0xFFFFFFFF - (best_BK & 0xFFFFFFFF)
    score_BK = scores_BI.gather(1, column_BK)
    items, scores = empty(len(scores_BI), k)
    items[:], scores[:] = -1, -np.inf
    items[:, : column_BK.shape[1]] = torch.where(score_BK == -torch.inf, -1, column_BK).cpu().numpy()
    scores[:, : column_BK.shape[1]] = score_BK.cpu().numpy()
    return items, scores


def mask_rows(masked: sp.csr_matrix | None, n_rows: int, pool_C: Numbers | None) -> tuple[Numbers, Array]:
    """CSR of the masked columns of each row, ascending, in the numbering of the candidates if there are any."""
    if masked is None:
        return np.zeros(n_rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    assert masked.shape[0] == n_rows, (masked.shape, n_rows)
    if pool_C is not None:
        masked = masked[:, pool_C]
    if not masked.has_sorted_indices:
        masked = masked.sorted_indices()
    return masked.indptr.astype(np.int64), masked.indices.astype(np.int32, copy=False)


def rows_of(mask: tuple[Numbers, Array], start: int, stop: int) -> tuple[Numbers, Array]:
    """The rows start : stop of a mask; row pointers still count from its first entry."""
    return mask[0][start : stop + 1], mask[1]


def check_k(k: int) -> None:
    """Raises ConfigError on a k below 1."""
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")


def empty(n_rows: int, k: int) -> Ranking:
    """An answer to fill."""
    return np.empty((n_rows, k), dtype=np.int64), np.empty((n_rows, k), dtype=np.float32)


def numbers_of(values: npt.ArrayLike | Tensor) -> Numbers:
    """Numbers as a contiguous int64 array."""
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.ascontiguousarray(array, dtype=np.int64)


def named(columns_BK: Numbers, scores_BK: npt.NDArray[np.float32], pool_C: Numbers | None) -> Ranking:
    """Candidates' places back to item numbers."""
    if pool_C is None or not len(pool_C):
        return columns_BK, scores_BK
    return np.where(columns_BK >= 0, pool_C[columns_BK], -1), scores_BK
