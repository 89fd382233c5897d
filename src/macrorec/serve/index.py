"""How are a million items searched in a millisecond? Long vectors are scanned, others by cells, the best multiplied.

Two tiers. The items of largest norm, the head, stand in most answers and are all scanned. The others lie in cells, made
by k-means with Euclidean distance, which a few long vectors cannot bend as they do inner products; the cells whose
centroids have the largest inner product with the query are scanned. Both scans read 8-bit codes. What is best by them
is multiplied exactly, so that codes and cells can only lose items, never change a score.

How many cells are scanned is not guessed: after the build, exact answers to real queries say how many are needed.

Measured against FAISS's other indexes: docs/guide/retrieval.md. Shape letters: B queries, I items, D embedding, H items
of the head, C candidates from cells, or cells, M both, K ranks.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from macrorec import files, weights
from macrorec.errors import ConfigError, DataError, UserError
from macrorec.eval.vectors import Ranking
from macrorec.serve.retrieve import DEEPEST, Exact, Floats, Numbers

FORMAT = "macrorec-index"
VERSION = 1
MANIFEST = "manifest.json"
_per_thread = threading.local()


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How an index is built; the defaults are chosen by measurement, for 50,000 to some millions of items."""

    head: int = 16_384
    """Items of largest norm that every query scans; at most a sixteenth of all."""
    cells: int | None = None
    """C; None: the power of two next to four times the square root of the number of items."""
    depth: int = 200
    """Depth that calibration looks at: about as deep as is retrieved for a ranker."""
    recall: float = 0.98
    """Recall at that depth that calibration asks for. At half of it, it is higher still."""
    queries: int = 256
    """Queries to calibrate by."""
    iterations: int = 8
    """Of k-means."""
    sample: int = 64
    """Items per cell that k-means learns from."""
    margin: float = 1.25
    """How many times k are taken from either tier, since codes round."""
    seed: int = 0
    """Of k-means, and of the choice of queries."""


class FaissIndex:
    """An approximate search over the items of an ``Exact``, which it asks where it could not answer well itself."""

    kind = "ivf-sq8"
    exact = False

    def __init__(self, oracle: Exact, cells: Any, head_H: Numbers, about: Mapping[str, Any]) -> None:
        """``cells``: the FAISS index of all items but the head, by number. ``about``: what ``build`` found."""
        self.oracle = oracle
        self.about = dict(about)
        """``config``, ``cells``, ``probes``, ``recall`` of the calibration, ``seconds`` of the build."""
        self._margin = float(about["config"]["margin"])
        self._cells, self._head_H = cells, head_H
        self._head = _scan_of(oracle.items_ID[head_H])

    @property
    def n_items(self) -> int:
        return self.oracle.n_items

    def search(self, vectors_BD: Floats, k: int) -> Ranking:
        if k > DEEPEST or k >= len(self.oracle.items_ID):
            return self.oracle.search(vectors_BD, k)
        queries_BD = np.ascontiguousarray(vectors_BD, dtype=np.float32)
        numbers_BK, scores_BK = self._search(queries_BD, k)
        short_B = numbers_BK[:, -1] < 0
        if short_B.any():  # the cells held too few
            numbers_BK[short_B], scores_BK[short_B] = self.oracle.search(queries_BD[short_B], k)
        return self.oracle.with_later((numbers_BK, scores_BK), queries_BD, k)

    def _search(self, queries_BD: Floats, k: int) -> Ranking:
        """The k best of the items of the fit, as far as the scans find them."""
        one_thread()
        wanted = int(self._margin * k) + 1
        rough_BH, head_BH = self._head.search(queries_BD, min(wanted, len(self._head_H)))
        rough_BC, cells_BC = self._cells.search(queries_BD, wanted)
        head_BH = np.where(head_BH >= 0, self._head_H[head_BH], -1)
        numbers_BM = np.concatenate([head_BH, cells_BC], axis=1)
        rough_BM = np.concatenate([rough_BH, rough_BC], axis=1)
        return self.oracle.best(queries_BD, numbers_BM, rough_BM, wanted, k)

    def score(self, vectors_BD: Floats, numbers_BC: Numbers) -> Floats:
        return self.oracle.score(vectors_BD, numbers_BC)

    def append(self, vectors_ND: Floats) -> None:
        self.oracle.append(vectors_ND)

    @staticmethod
    def build(oracle: Exact, queries_UD: Floats, config: IndexConfig | None = None, *, threads: int = 1) -> FaissIndex:
        """Build over the items of ``oracle``, on so many threads, and calibrate on some of ``queries_UD``.

        The same bits for the same input, whatever the number of threads. Raises ConfigError without faiss.
        """
        config, start = config or IndexConfig(), time.perf_counter()
        faiss = _faiss()
        faiss.omp_set_num_threads(threads)
        _per_thread.bounded = False
        items_ID = oracle.items_ID
        norm_I = np.linalg.norm(items_ID, axis=1)
        in_head = np.zeros(len(items_ID), dtype=bool)
        in_head[np.argsort(-norm_I, kind="stable")[: min(config.head, len(items_ID) // 16)]] = True
        head_H, others = np.flatnonzero(in_head), np.flatnonzero(~in_head)
        vectors = np.ascontiguousarray(items_ID[others])
        n_cells = config.cells or 2 ** round(np.log2(4 * len(items_ID) ** 0.5))
        centroids_CD, cell = _cells_of(faiss, vectors, n_cells, config)
        cells = _filled(faiss, vectors, others, centroids_CD, cell)
        about = {"config": asdict(config), "cells": n_cells, "probes": 1, "recall": 0.0, "seconds": 0.0}
        index = FaissIndex(oracle, cells, head_H, about)
        index._calibrate(queries_UD, config, n_cells)
        index.about["seconds"] = time.perf_counter() - start
        return index

    def _calibrate(self, queries_UD: Floats, config: IndexConfig, n_cells: int) -> None:
        """Scan as many cells, half as many more at a time, as the recall needs that is asked for."""
        usable = np.flatnonzero((queries_UD != 0).any(axis=1))
        drawn = np.random.default_rng(config.seed).permutation(usable)[: config.queries]
        queries_BD = np.ascontiguousarray(queries_UD[np.sort(drawn)], dtype=np.float32)
        k = min(config.depth, len(self.oracle.items_ID) - 1)
        right_BK = self.oracle.search(queries_BD, k)[0]
        probes, reached = 1, 0.0
        while len(queries_BD):
            probes = min(probes + max(probes // 2, 1), n_cells)
            self._cells.nprobe = probes
            reached = recall(self._search(queries_BD, k)[0], right_BK)
            if reached >= config.recall or probes == n_cells:
                break
        self.about |= {"probes": probes, "recall": reached}

    def save(self, folder: Path) -> None:
        """Write the index to ``folder``, whole or not at all. Raises UserError where that cannot be done."""
        packed = {
            "cells": torch.from_numpy(_faiss().serialize_index(self._cells)),
            "head_H": torch.from_numpy(self._head_H),
        }
        with files.new_folder(folder, MANIFEST) as new:
            weights.write(new / "index.safetensors", packed)
            digest = files.sha256(new / "index.safetensors")
            about = {"format": FORMAT, "version": VERSION, "sha256": digest, "about": self.about}
            files.write_json(new / MANIFEST, about)

    @staticmethod
    def load(folder: Path, oracle: Exact) -> FaissIndex:
        """What ``save`` wrote for the items of ``oracle``. Raises DataError if it is missing, damaged, or of others."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            path = folder / "index.safetensors"
            if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
                raise DataError(f"{folder} holds an index of another format")
            if files.sha256(path) != manifest["sha256"]:
                raise DataError(f"{path} is damaged: its sha256 is not the one in {MANIFEST}")
            packed = weights.read(path)
            cells = _faiss().deserialize_index(packed["cells"].numpy())
            head_H = packed["head_H"].numpy()
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(f"{folder} cannot be read as an index: {str(error).splitlines()[0]}") from error
        if cells.ntotal + len(head_H) != len(oracle.items_ID) or cells.d != oracle.items_ID.shape[1]:
            raise DataError(f"{folder} is the index of other items")
        return FaissIndex(oracle, cells, head_H, manifest["about"])


def cached(
    oracle: Exact,
    queries_UD: Floats,
    cache: Path,
    key: str,
    config: IndexConfig | None = None,
    *,
    threads: int = 1,
) -> tuple[FaissIndex, str]:
    """The index in the folder ``cache`` under ``key``, built and kept there if it is not; and what happened, in a line.

    ``key`` must tell the vectors apart: their sha256. What is damaged is built anew; a folder that cannot be written
    costs only the next start.
    """
    config = config or IndexConfig()
    described = json.dumps([key, VERSION, asdict(config), _faiss().__version__])
    folder = cache / f"index-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    why = ""
    if folder.exists():
        try:
            return FaissIndex.load(folder, oracle), f"read from {folder}"
        except DataError as error:
            why = f"; {error}"
    index = FaissIndex.build(oracle, queries_UD, config, threads=threads)
    try:
        index.save(folder)
    except UserError as error:
        why += f"; not kept: {error}"
    return index, f"built in {index.about['seconds']:.1f} s{why}"


def recall(found_BK: Numbers, right_BK: Numbers) -> float:
    """sum_b |found_b and right_b| / sum_b |right_b|; numbers of -1 do not count."""
    hits = sum(len(np.intersect1d(f, r[r >= 0])) for f, r in zip(found_BK, right_BK, strict=True))
    return hits / max(int((right_BK >= 0).sum()), 1)


def one_thread() -> None:
    """Keep FAISS to the calling thread: requests run side by side already, and its default is all cores for each."""
    if not getattr(_per_thread, "bounded", False):
        _faiss().omp_set_num_threads(1)
        _per_thread.bounded = True


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ConfigError("the index needs faiss: pip install 'macrorec[serve]', or serve with exact search") from None
    return faiss


def _scan_of(vectors_HD: Floats) -> Any:
    """An index that scans 8-bit codes of all vectors."""
    faiss = _faiss()
    scan = faiss.IndexScalarQuantizer(vectors_HD.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    if len(vectors_HD):
        scan.train(vectors_HD)
        scan.add(vectors_HD)
    return scan


def _cells_of(faiss: Any, vectors: Floats, n_cells: int, config: IndexConfig) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Centroids (C, D), each the mean of its members, and the cell of each vector."""
    dim = vectors.shape[1]
    settings = {"niter": config.iterations, "seed": config.seed, "max_points_per_centroid": config.sample}
    kmeans = faiss.Kmeans(dim, n_cells, min_points_per_centroid=1, **settings)
    kmeans.train(vectors)
    cell = kmeans.index.search(vectors, 1)[1][:, 0].astype(np.int64)
    order = np.argsort(cell, kind="stable")
    used, first = np.unique(cell[order], return_index=True)
    sums = np.add.reduceat(vectors[order], first, axis=0, dtype=np.float64)
    centroids_CD = kmeans.centroids.reshape(n_cells, dim).copy()
    centroids_CD[used] = sums / np.diff(np.append(first, len(cell)))[:, None]
    return centroids_CD, cell


def _filled(faiss: Any, vectors: Floats, numbers: Numbers, centroids_CD: Floats, cell: npt.NDArray[np.int64]) -> Any:
    """An inverted file over the cells, with 8-bit codes of the vectors under their numbers."""
    dim, inner = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids_CD)
    code = faiss.ScalarQuantizer.QT_8bit
    cells = faiss.IndexIVFScalarQuantizer(quantizer, dim, len(centroids_CD), code, inner, False)
    cells.train(vectors)  # of the codes' ranges alone: the cells are there
    numbers = np.ascontiguousarray(numbers, dtype=np.int64)
    cells.add_core(len(vectors), *(faiss.swig_ptr(array) for array in (vectors, numbers, cell)))
    cells.referenced_objects = [quantizer]
    return cells
