"""How does a vector become one number? The multi-layer perceptron that rankers end in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from macrorec.ops.dice import Dice

Activation = Literal["relu", "dice"]


class MLP(nn.Module):
    """h_l = g(W_l h_{l-1} + b_l) for each hidden layer, with dropout after it; then a linear layer: (B, Z) -> (B,)."""

    def __init__(self, n_in: int, hidden: tuple[int, ...], activation: Activation, dropout: float = 0.0) -> None:
        """``dropout`` is the share of hidden units that training leaves out; the others are scaled up for it."""
        super().__init__()
        widths = zip((n_in, *hidden), (*hidden, 1), strict=True)
        self.layers = nn.ModuleList(skip_init(nn.Linear, *pair) for pair in widths)  # type: ignore[no-untyped-call]
        self.gates = nn.ModuleList(Dice(width) if activation == "dice" else nn.ReLU() for width in hidden)
        self.dropout = dropout

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices: Xavier, uniform. Biases and Dice's alpha: 0."""
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, x_BZ: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``generator`` draws what dropout leaves out."""
        return self.after_first(self.layers[0](x_BZ), generator)

    def after_first(self, x_BH: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The same, (B, H) -> (B,), from what the first layer gives before its gate."""
        for gate, layer in zip(self.gates, [*self.layers][1:], strict=True):
            x_BH = gate(x_BH)
            if self.training and self.dropout:
                keep = torch.rand(x_BH.shape, generator=generator, device=x_BH.device) >= self.dropout
                x_BH = x_BH * keep / (1 - self.dropout)
            x_BH = layer(x_BH)
        return x_BH.squeeze(1)


def n_weights(n_in: int, hidden: tuple[int, ...]) -> int:
    """Numbers that an MLP holds, Dice's alpha and averages included."""
    return sum((a + 4) * b for a, b in zip((n_in, *hidden), (*hidden, 1), strict=True))
