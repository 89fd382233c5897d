"""Which activation adapts to the data, and yet scores an impression alike whatever stands beside it?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm

from macrorec.ops.gather import compiled


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
        if not self.training or len(x_BH) < 2:
            mean_H, var_H = self.statistics()
            return _gated(x_BH, torch.sigmoid((x_BH - mean_H) * (var_H + self.eps).rsqrt()), self.alpha)
        self.seen += self.momentum * (1 - self.seen)
        running = (self.running_mean, self.running_var)
        if compiled(x_BH):
            y_BH: Tensor = _BatchDice.apply(x_BH, self.alpha, *running, self.momentum, self.eps)  # type: ignore[no-untyped-call]
            return y_BH
        scaled_BH = batch_norm(x_BH, *running, None, None, True, self.momentum, self.eps)
        return _gated(x_BH, torch.sigmoid(scaled_BH), self.alpha)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """E and Var of evaluation, shape (H,) each; 0 and 1 before the first batch."""
        none = (self.seen == 0).to(self.seen.dtype)
        return self.running_mean / (self.seen + none), (self.running_var + none) / (self.seen + none)


def _gated(x_BH: Tensor, p_BH: Tensor, alpha_H: Tensor) -> Tensor:
    return x_BH * torch.addcmul(alpha_H, 1 - alpha_H, p_BH)


class _BatchDice(torch.autograd.Function):
    """Dice by the batch's own statistics. The gradient is one compiled loop: torch's takes ten times as long."""

    @staticmethod
    def forward(
        ctx: Any, x_BH: Tensor, alpha_H: Tensor, mean_H: Tensor, var_H: Tensor, momentum: float, eps: float
    ) -> Tensor:
        from macrorec.ops import kernels

        x_BH = x_BH.contiguous()
        p_BH, *batch = torch.native_batch_norm(x_BH, None, None, mean_H, var_H, True, momentum, eps)
        ctx.save_for_backward(x_BH, p_BH.sigmoid_(), *batch, alpha_H)
        y_BH = torch.empty_like(x_BH)
        kernels.dice(*(array.detach().numpy() for array in (x_BH, p_BH, alpha_H, y_BH)))
        return y_BH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BH: Tensor) -> tuple[Tensor | None, ...]:
        from macrorec.ops import kernels

        x_BH, *others, alpha_H = ctx.saved_tensors
        grad_x, grad_alpha = torch.empty_like(x_BH), torch.zeros_like(alpha_H)
        arrays = (x_BH, *others, alpha_H, grad_BH.contiguous(), grad_x, grad_alpha)
        kernels.dice_back(*(array.detach().contiguous().numpy() for array in arrays))
        return grad_x, grad_alpha, None, None, None, None
