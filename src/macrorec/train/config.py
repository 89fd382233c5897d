"""How may training be configured? Ranges are checked here, once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from macrorec.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to descend. Ignored by models in closed form. Raises ConfigError on a value outside its range."""

    epochs: int = 1000
    """At most so many passes over the train part (He et al. 2020, section 4.1.2)."""
    batch_size: int = 2048
    """Edges, users or rows of a batch, as the model's batch kind counts (He et al. 2020, authors' code)."""
    lr: float = 1e-3
    """Learning rate (He et al. 2020, section 4.1.2)."""
    weight_decay: float = 0.0
    """Added to the gradient, times the parameter, as torch.optim does; models have their own l2 terms."""
    optimizer: Literal["adam", "sgd", "adagrad"] = "adam"
    """``torch.optim.Adam``, ``SGD`` without momentum, or ``Adagrad``."""
    clip_norm: float | None = None
    """Scale the gradients of a step so that their joint norm is at most this; None leaves them."""
    monitor: str | None = None
    """Validation metric that decides on the best epoch and on stopping early; None for neither."""
    patience: int | None = None
    """Stop after so many validations in a row without a new best value of ``monitor``; None never does."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is validated in any case."""
    keep: Literal["best", "last"] = "best"
    """Whose weights the model ends with: the best epoch's by ``monitor`` (without one, the last), or the last's."""
    average: float = 0.0
    """Decay per step of an exponential mean of the weights, which is then what validation measures and what the model
    ends with (Polyak and Juditsky 1992); 0 stands for the weights themselves."""
    checkpoint_seconds: float = 60.0
    """Write a checkpoint at least this often; also at ends of epochs, as far as that costs little time."""
    threads: int | None = None
    """CPU threads of torch and numba while training; None stands for as many as torch has."""
    deterministic: bool = False
    """On a GPU too, use only kernels that give equal bits for equal input (slower); on the CPU that is always so."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every", "patience", "threads"):
            self._check(name, "at least 1", lambda value: value >= 1)
        for name in ("lr", "clip_norm"):
            self._check(name, "finite and above 0", lambda value: 0 < value < math.inf)
        for name in ("weight_decay", "checkpoint_seconds"):
            self._check(name, "finite and at least 0", lambda value: 0 <= value < math.inf)
        self._check("average", "at least 0 and below 1", lambda value: 0 <= value < 1)
        self._check("optimizer", "adam, sgd or adagrad", lambda value: value in ("adam", "sgd", "adagrad"))
        self._check("keep", "best or last", lambda value: value in ("best", "last"))
        if self.patience is not None and self.monitor is None:
            raise ConfigError("patience needs a validation metric to watch: set monitor, such as 'ndcg@10'")

    def _check(self, name: str, allowed: str, holds: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise ConfigError(f"{name} must be {allowed}, not {value!r}")
