"""How long does CascadingRank take to rank for all users of Taobao? To 1e-6 of the limit, 4 threads.

Run as ``python -m benchmarks.cascadingrank [users]``: scores of so many users (1,024, or 15,449 for all), scaled to all
of them. Baseline: the iteration as its authors write it in PyTorch, COO matrices and 1,024 users at once, with as many
steps as reach the same limit. The scores of both are compared before anything is measured.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor

from benchmarks.line import emit
from benchmarks.turns import timed
from benchmarks.waiting import asleep
from macrorec import recipes
from macrorec.graph.bipartite import Graph, from_split
from macrorec.inputs import read_split
from macrorec.models.cascadingrank import MODEL, CascadingRankConfig

THREADS, USERS, BATCH = 4, 1024, 1024


class Plain:
    """The authors' iteration: both sides from the values of the last step."""

    def __init__(self, config: CascadingRankConfig, graph: Graph) -> None:
        self.config, self.graph = config, graph
        self.behaviors = []
        for edges in graph.edges:
            degree_U, degree_I = edges.degrees(graph.n_items)
            place, shape = torch.stack([edges.user_E, edges.item_E]), (graph.n_users, graph.n_items)
            value_E = (degree_U[edges.user_E] * degree_I[edges.item_E]).double().rsqrt().float()
            matrix = torch.sparse_coo_tensor(place, value_E, shape, check_invariants=False).coalesce()
            rows = torch.sparse_coo_tensor(place, 1 / degree_U[edges.user_E], shape, check_invariants=False).coalesce()
            self.behaviors.append((matrix, matrix.t().coalesce(), rows))

    def score_all(self, users: Tensor) -> Tensor:
        """Scores (B, I)."""
        return torch.cat([self._block(part) for part in torch.split(users, BATCH)])

    def _block(self, users: Tensor) -> Tensor:
        config = self.config
        one = torch.zeros(self.graph.n_users, len(users))
        one[users, torch.arange(len(users))] = 1
        before: tuple[Tensor, Tensor] | None = None
        for matrix, back, rows in self.behaviors:
            row = rows.index_select(0, users).to_dense().T
            before = before or (one, row)
            user, item = one, row
            for _ in range(2 * config.n_steps):
                user, item = (
                    config.flow * torch.sparse.mm(matrix, item) + config.alpha * one + config.beta * before[0],
                    config.flow * torch.sparse.mm(back, user) + config.alpha * row + config.beta * before[1],
                )
            before = user, item
        assert before is not None, "a graph has a target behaviour"
        return before[1].T


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.cascadingrank")
    torch.set_num_threads(THREADS)
    recipe = recipes.load("cascadingrank-taobao")
    graph = from_split(read_split(recipe.source, recipe.prepare, recipe.split, seed=0))
    model = MODEL.from_graph(recipe.model, graph, torch.Generator())
    plain = Plain(recipe.model, graph)
    few = torch.arange(0, graph.n_users, 997)
    torch.testing.assert_close(model.score_all(few), plain.score_all(few), rtol=1e-4, atol=2e-6)
    n_users = int(sys.argv[1]) if len(sys.argv) > 1 else USERS
    users = torch.randperm(graph.n_users, generator=torch.Generator().manual_seed(0))[:n_users]
    scale = graph.n_users / len(users)
    own, other = timed(lambda: model.score_all(users), lambda: plain.score_all(users), repeats=3)
    emit(
        name="cascadingrank",
        value=round(scale * own.wall, 1),
        unit="s, all users",
        baseline={"name": "the iteration in PyTorch, COO", "value": round(scale * other.wall, 1)},
        ratio=round(other.wall / own.wall, 2),
        cpu_seconds=round(scale * own.cpu, 1),
        baseline_cpu_seconds=round(scale * other.cpu, 1),
        users={"measured": len(users), "all": graph.n_users},
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
