"""Which numbers does training leave out? Dropout that draws from an explicit generator."""

from __future__ import annotations

import torch
from torch import Tensor


def coins(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """1 / (1 - p) where a coin of 1 - p falls on heads, else 0, in the shape of ``x``; p is ``share``.

    Multiplied with the vectors of nodes, (N, D) by (N, 1), it is node dropout (Wang et al. 2019, section 2.4.2).
    """
    return torch.rand(x.shape, generator=generator, device=x.device).ge_(share).div_(1 - share).to(x.dtype)


def dropout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """x / (1 - p) where a coin of 1 - p falls on heads, else 0, each number by itself: message dropout, for one."""
    return x * coins(x, share, generator) if share else x
