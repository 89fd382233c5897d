"""How does a model score by the mean of its last weights? It keeps them beside the weights that are trained.

Polyak & Juditsky (1992): the mean over steps is nearer to the optimum than the last step, which still jumps about it.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def of_buffers(module: Module) -> Module:
    """The same module, changed in place: its parameters are buffers, which are saved, and which no optimiser moves."""
    for part in module.modules():
        for name, weight in [*part.named_parameters(recurse=False)]:
            delattr(part, name)
            part.register_buffer(name, weight.detach())
    return module


@torch.no_grad()
def average(mean: nn.Module, trained: nn.Module, step: int, n_steps: int) -> None:
    """m <- m + max(1 / t, 1 / T) (w - m), after step t = 1, 2, ...: the mean of all w so far, then of about the last T.

    ``mean`` is of buffers, in the order of the parameters of ``trained``.
    """
    for m, w in zip(mean.buffers(), trained.parameters(), strict=True):
        m.lerp_(w, max(1 / step, 1 / n_steps))
