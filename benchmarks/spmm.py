"""How long does one product of Gowalla's normalised adjacency with 64 columns take, on 4 threads?

Run as ``python -m benchmarks.spmm``. Baselines: torch's CSR matmul (MKL), torch's COO matmul as LightGCN's authors use
it, and scipy; in turns, medians, each after two products of its own, for in an epoch product follows product. ``rows``
is the product for 5,700 rows, ``placed`` that with 5,700 rows that are not zero: the last layer of a batch of 2,048
triples, and the first step back.
"""

from __future__ import annotations

import os
import warnings

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks import gowalla
from benchmarks.line import emit
from benchmarks.turns import timed
from benchmarks.waiting import asleep
from macrorec.graph.bipartite import from_split
from macrorec.ops.gather import distinct, gather, gather_placed
from macrorec.ops.layers import normalized_adjacency
from macrorec.ops.spmm import spmm

THREADS, DIM, ROWS, REPEATS = 4, 64, 5_700, 15


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.spmm")
    torch.set_num_threads(THREADS)
    split, origin = gowalla.split()
    graph = from_split(split)
    adjacency = normalized_adjacency(graph.target, graph.n_users, graph.n_items)
    side = adjacency.side(transpose=False)
    shape = (graph.n_nodes, graph.n_nodes)
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(graph.n_nodes, DIM, generator=generator)
    rows_K, _, place_N = distinct(torch.randperm(graph.n_nodes, generator=generator)[:ROWS], graph.n_nodes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        csr = torch.sparse_csr_tensor(side[0].int(), side[1], side[2], size=shape)
        coo = csr.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
    by_scipy = sp.csr_matrix((side[2].numpy(), side[1].numpy(), side[0].numpy()), shape=shape)
    torch.testing.assert_close(spmm(adjacency, x_ND), csr @ x_ND)
    ours, mkl, authors, scipy, rows, placed = timed(
        lambda: spmm(adjacency, x_ND),
        lambda: csr @ x_ND,
        lambda: torch.sparse.mm(coo, x_ND),
        lambda: by_scipy @ x_ND.numpy(),
        lambda: gather(side, x_ND, rows_B=rows_K, add_MD=x_ND),
        lambda: gather_placed(side, x_ND[:ROWS], x_ND[:ROWS], place_N),
        repeats=REPEATS,
        warm=2,
    )

    def milliseconds(seconds: float) -> float:
        return float(np.round(1e3 * seconds, 2))

    emit(
        name="spmm",
        value=milliseconds(ours.wall),
        unit="ms",
        baseline={"name": "torch CSR matmul", "value": milliseconds(mkl.wall)},
        ratio=round(mkl.wall / ours.wall, 2),
        torch_coo=milliseconds(authors.wall),
        scipy=milliseconds(scipy.wall),
        rows=milliseconds(rows.wall),
        placed=milliseconds(placed.wall),
        cpu={"value": milliseconds(ours.cpu), "baseline": milliseconds(mkl.cpu)},
        entries=len(adjacency),
        dim=DIM,
        data=origin,
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
