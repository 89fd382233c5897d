"""What does each input of a smooth function add to its value? Integrated gradients, to the last digit that matters.

Shape letters: Z inputs, T points on the path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

_NODES, _PANELS = 16, 1024
"""Nodes per panel of the path, and the most panels that it is cut into."""


def integrated_gradient(
    function: Callable[[Tensor], Tensor], x_Z: Tensor, *, tolerance: float = 1e-7
) -> tuple[Tensor, float]:
    """g = integral over t in [0, 1] of f'(t x), and f(0): f(x) - f(0) = <g, x>   (Sundararajan, Taly & Yan 2017).

    Returns g, shape (Z,), and f(0). ``function`` maps points (T, Z) to values (T,). Gauss-Legendre nodes on panels of
    the path, which are halved until both sides agree to ``tolerance`` times 1 + |f(x) - f(0)|.
    """
    ends = function(torch.stack([torch.zeros_like(x_Z), x_Z])).detach()
    rise = float(ends[1] - ends[0])
    node, weight = (t.to(x_Z) for t in _legendre(_NODES))
    n_panels = 1
    while True:
        at_T = ((torch.arange(n_panels).to(x_Z)[:, None] + node) / n_panels).flatten()
        points = (at_T[:, None] * x_Z).requires_grad_()
        with torch.enable_grad():
            (slope_TZ,) = torch.autograd.grad(function(points).sum(), points)
        gradient_Z = (weight.repeat(n_panels) / n_panels) @ slope_TZ
        if abs(float(gradient_Z @ x_Z) - rise) <= tolerance * (1 + abs(rise)) or n_panels >= _PANELS:
            return gradient_Z, float(ends[0])
        n_panels *= 2


@cache
def _legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]   (Golub & Welsch 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    beside = k / (4 * k * k - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return (values + 1) / 2, vectors[0].square()
