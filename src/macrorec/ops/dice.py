"""Which activation adapts to the data, and yet scores an impression alike whatever stands beside it?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class Dice(nn.Module):
    """y = p x + (1 - p) alpha x, p = sigmoid((x - E[x]) / sqrt(Var[x] + eps))   (Zhou et al. 2018, DIN, eq. 3).

    E and Var are of the batch while training, and running averages of them in evaluation: in released code the batch
    decides there, too, so that a score depends on its batch mates. The averages are sum_t m (1 - m)^(T - t) x_t over
    the T batches so far, divided by ``seen`` = 1 - (1 - m)^T: the first batch counts in full, and nothing stands for
    batches that were not. A batch of one has no variance: it takes the averages, and leaves them as they are.

    Shapes:
        x (B, H) -> (B, H); alpha, running_mean and running_var (H,); seen ()
    """

    running_mean: Tensor
    running_var: Tensor
    seen: Tensor

    def __init__(self, width: int, *, momentum: float = 0.05, eps: float = 1e-8) -> None:
        """``width`` units; ``momentum`` is m; alpha starts at 0, and ``eps`` is 1e-8, as in the paper's code."""
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.alpha = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.zeros(width))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x_BH: Tensor) -> Tensor:
        if self.training and len(x_BH) > 1:
            scaled = batch_norm(x_BH, self.running_mean, self.running_var, None, None, True, self.momentum, self.eps)
            self.seen += self.momentum * (1 - self.seen)
        else:
            mean_H, var_H = self.statistics()
            scaled = (x_BH - mean_H) * (var_H + self.eps).rsqrt()
        p_BH = torch.sigmoid(scaled)
        return x_BH * (p_BH + (1 - p_BH) * self.alpha)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """E and Var of evaluation, shape (H,) each; 0 and 1 before the first batch."""
        none = (self.seen == 0).to(self.seen.dtype)
        return self.running_mean / (self.seen + none), (self.running_var + none) / (self.seen + none)
