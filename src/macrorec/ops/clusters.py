"""How does CCBIE take a step on the CPU? Loss, gradients and Adam in one compiled loop over the rows of the batch.

The step costs what the batch costs, whatever the tables hold: rows outside the batch catch up on Adam's steps when they
are next read (``adam_kernels``), or in ``settle``. With weight decay, which moves every row, every row is stepped.

Shape letters: B batch, N negatives, U users, I items, D embedding, K clusters, H hidden, Q preferences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.ops.gather import pool, view

Array = npt.NDArray[Any]

BETAS, EPS = (0.9, 0.999), 1e-8
"""Of Adam, as torch has them."""
ACTIVATIONS = ("none", "relu", "tanh", "sigmoid")
_FADE_ENDS = 40_000
"""Steps after which Adam's corrections are one."""
_DENORMAL = 1e-30
"""A factor that would make numbers too small for fast arithmetic stands for 0."""
_ALONE = 64
"""Edges of a batch below which one thread is faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the loss is made of."""

    alpha: float
    """Weight of cosines; that of preferences for clusters is 1 - alpha."""
    beta: float
    """Weight of the distances between centres."""
    negative: float = 1.0
    """Weight of the square of a pair that is no edge."""
    activation: Literal["none", "relu", "tanh", "sigmoid"] = "none"
    softmax: bool = False
    """Whether items belong to clusters by a softmax, and not by shares."""
    raw: bool = False
    """Whether distances between centres are those of C, and not of C / |C|."""
    mean: bool = False
    """Whether the squares of a batch are averaged, and not summed."""


def one_step_serves(table: Tensor) -> bool:
    """Whether the compiled loop applies: float32 on the CPU."""
    return table.device.type == "cpu" and table.dtype == torch.float32


class ClusterAdam(torch.optim.Optimizer):
    """``torch.optim.Adam`` on CCBIE's loss; ``descend`` computes loss and gradients itself.

    The parameters but the tables are moved into one array, where each remains a tensor of its own.
    """

    def __init__(
        self,
        users_UD: Tensor,
        items_ID: Tensor,
        small: Sequence[Tensor],
        terms: Terms,
        *,
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        """``small``: centres (K, D), then the matrices and biases of the MLP of users, and of items; or fewer."""
        super().__init__([users_UD, items_ID, *small], {"lr": lr, "weight_decay": weight_decay})
        from macrorec.ops import cluster_kernels, cluster_layout, tile_kernels

        self.kernels: Any = cluster_kernels, cluster_layout, tile_kernels
        self.terms, self.decays = terms, weight_decay > 0
        dim = users_UD.shape[1]
        n_clusters = len(small[0]) if small else 0
        hidden = len(small[2]) if len(small) > 1 else 0
        n_preferences = len(small[4]) if len(small) > 1 else n_clusters
        self.sizes = (dim, n_clusters, hidden, n_preferences)
        self.arrays: list[Any] = [np.zeros((1, sum(part.numel() for part in small)), np.float32) for _ in range(3)]
        at = 0
        for part in small:
            here = slice(at, at + part.numel())
            values, *moments = (torch.from_numpy(row[0, here]).view_as(part) for row in self.arrays)
            part.data = values.copy_(part.data)
            self.state[part] = {"exp_avg": moments[0], "exp_avg_sq": moments[1]}
            at += part.numel()
        for table in (users_UD, items_ID):
            moments = [torch.from_numpy(np.zeros(table.shape, np.float32)) for _ in range(2)]
            last = torch.zeros(len(table), dtype=torch.int32)
            self.state[table] = {"exp_avg": moments[0], "exp_avg_sq": moments[1], "last": last}
        self.state[users_UD]["step"] = torch.zeros(1, dtype=torch.int64)
        self.step_count = view(self.state[users_UD]["step"])
        self.tables: list[Any] = [
            tuple(map(view, (table, *(self.state[table][name] for name in ("exp_avg", "exp_avg_sq", "last")))))
            for table in (users_UD, items_ID)
        ]
        self.gradient = np.zeros_like(self.arrays[0])
        self.fade = _fade(*BETAS)
        self.numbers = np.array(
            [terms.alpha, terms.beta, lr, *BETAS, EPS, weight_decay, 0, 0, terms.negative, 0, 0], np.float64
        )
        self.place: list[Any] = [np.full(len(table), -1, np.int32) for table in (users_UD, items_ID)]
        self.counters = np.zeros(64, np.int64)
        self.room, self.counts = 0, np.zeros(2, np.int64)
        self.helpers: list[Future[None]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing: ``descend`` steps."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the moments, in place."""
        parameters = self.param_groups[0]["params"]
        for number, values in state_dict["state"].items():
            for name, value in values.items():
                self.state[parameters[number]][name].copy_(value)

    def descend(self, users_B: Tensor, items_B: Tensor, negatives_BN: Tensor) -> tuple[Tensor, ...]:
        """One step; the two terms of the loss before it."""
        kernels, layout, tiles = self.kernels
        users, items, negatives = map(view, (users_B, items_B, negatives_BN))
        n_pairs = negatives.size + len(users)
        self._make_room(len(users), n_pairs)
        self.counts[:] = layout.number_rows(
            users, items, negatives, *self.place, self.node_R, self.start_R, self.other_P
        )
        done = int(self.step_count[0])
        self.numbers[7:9] = done, 1 / n_pairs if self.terms.mean else 1.0
        first, second = (1 - beta ** (done + 1) for beta in BETAS)
        self.numbers[10:] = self.numbers[2] / first, 1 / math.sqrt(second)
        if self.sizes[1]:
            layout.lay_out(self.arrays[0][0], self.shape, self.weights)
        tiles.enter(self.counters)
        if len(users) >= _ALONE:
            self._call_for_help()
        self._learn()
        tiles.leave(self.counters)
        losses = kernels.finish(
            *self.arrays, self.shape, self.counts, self.numbers, self.weights, self.sums, self.losses, self.gradient
        )
        self.step_count += 1
        return torch.from_numpy(np.array(losses, np.float32)).unbind()

    def settle(self) -> None:
        """Make all steps that rows have put off."""
        from macrorec.ops.adam_kernels import catch_up

        if not self.decays:
            self.numbers[7] = self.step_count[0]
            for table in self.tables:
                n_rows = len(table[0])
                catch_up(*table, np.arange(n_rows), 0, n_rows, self.numbers, self.fade)  # type: ignore[call-arg]

    def _learn(self) -> None:
        self.kernels[0].learn(
            *self.tables,
            self.shape,
            self.counts,
            self.numbers,
            self.fade,
            self.node_R,
            self.start_R,
            self.other_P,
            self.weights,
            self.rows,
            self.sums,
            self.losses,
            self.counters,
        )

    def _call_for_help(self) -> None:
        """Other threads take part as soon as they come; one that comes too late finds the step closed, or the next."""
        n_threads = torch.get_num_threads()
        self.helpers = [helper for helper in self.helpers if not helper.done()]
        if len(self.helpers) < n_threads - 1:
            threads = pool(n_threads)
            self.helpers += [threads.submit(self._learn) for _ in range(n_threads - 1 - len(self.helpers))]

    def _make_room(self, n_edges: int, n_pairs: int) -> None:
        """Arrays for a batch of so many edges and pairs, unless those at hand are long enough."""
        kernels, layout, tiles = self.kernels
        if n_pairs <= self.room:
            return
        for helper in self.helpers:
            helper.result()
        self.room, n_rows = n_pairs, n_edges + n_pairs
        padded = [(size, -(-size // tiles.LANES) * tiles.LANES) for size in self.sizes]
        sizes = tuple(number for pair in padded for number in pair)
        _, weights, sums, _, to, at = layout.places(sizes)
        options = ACTIVATIONS.index(self.terms.activation), int(self.terms.softmax), int(self.terms.raw)
        self.shape: Any = (*sizes, *options, at + 2 * sums)
        self.weights = np.zeros(to + 2 * weights, np.float32)
        self.sums = np.zeros((kernels.PARTS, self.shape[-1]), np.float32)
        self.losses = np.zeros(kernels.PARTS)
        widths = [padded[n][1] for n in (0, 1, 2, 3, 3)]
        self.rows: Any = (
            *(np.zeros((n_rows, width), np.float32) for width in widths),
            np.zeros(2 * n_rows, np.float32),
        )
        self.node_R, self.start_R = np.empty(n_rows, np.int64), np.empty(n_rows + 2, np.int64)
        self.other_P = np.empty(2 * n_pairs, np.int64)


def _fade(beta1: float, beta2: float) -> Array:
    """What ``catch_up`` looks up, shape (5, steps); rows are constant from the last step on, or nothing."""
    step, ratio = np.arange(_FADE_ENDS + 1), beta1 / math.sqrt(beta2)
    powers = [np.power(base, step) for base in (ratio, beta1, beta2)]
    correction = np.sqrt(1 - powers[2][1:]) / (1 - powers[1][1:])
    fade = np.empty(_FADE_ENDS + 1)
    fade[-1] = ratio / (1 - ratio)
    for n in range(_FADE_ENDS - 1, -1, -1):
        fade[n] = ratio * (correction[n] + fade[n + 1])
    powers[1][powers[1] < _DENORMAL] = 0
    return np.stack([fade, *powers, EPS * np.sqrt((1 - beta2 * powers[2]) / beta2)])
