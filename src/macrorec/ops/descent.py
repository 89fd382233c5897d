"""How is a small problem of its own solved inside a model? Adam on one tensor, so many steps, no randomness.

Shape letters: B independent problems, D unknowns of each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8
"""Decay of Adam's two moments (Kingma & Ba 2015), and what keeps its quotient finite."""


def descend(loss_of: Callable[[Tensor], Tensor], start_BD: Tensor, *, steps: int, lr: float) -> Tensor:
    """The (B, D) that ``steps`` steps of Adam reach from ``start_BD``; ``loss_of`` answers a loss per row, (B,).

    Every row is its own problem, and takes the same steps whatever others there are. The step falls from ``lr`` to
    nothing in a straight line. Gradients are on even where the caller turned them off; none flows into the answer.
    """
    x_BD = start_BD.detach().clone()
    first_BD, second_BD = torch.zeros_like(x_BD), torch.zeros_like(x_BD)
    for step in range(steps):
        with torch.enable_grad():
            x_BD.requires_grad_()
            (slope_BD,) = torch.autograd.grad(loss_of(x_BD).sum(), x_BD)
        x_BD = x_BD.detach()
        first_BD.lerp_(slope_BD, 1 - FIRST)
        second_BD.lerp_(slope_BD.square(), 1 - SECOND)
        mean_BD, square_BD = first_BD / (1 - FIRST ** (step + 1)), second_BD / (1 - SECOND ** (step + 1))
        x_BD = x_BD - lr * (1 - step / steps) * mean_BD / (square_BD.sqrt() + TINY)
    return x_BD
