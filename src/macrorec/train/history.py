"""What happened in training, which epoch was the best, and is patience at its end?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypedDict

LOWER_IS_BETTER = ("logloss",)
"""Metrics that are errors; of all others more is better."""


class Epoch(TypedDict):
    """One epoch, as plain values."""

    epoch: int
    """From 1; 0 for a model in closed form."""
    losses: dict[str, float]
    """Term -> mean over the epoch's batches."""
    metrics: dict[str, float]
    """On the validation part; empty where the epoch was not validated."""
    seconds: float
    """Of training: sampling, forward, backward, optimiser."""
    validation_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What happened in training, as plain values."""

    epochs: list[Epoch]
    best_epoch: int
    """The first best by the monitored metric, without one the last; 0 for a model in closed form."""
    seconds: float
    """Of the whole call, summed over its resumptions."""

    @property
    def seconds_per_epoch(self) -> float:
        """Median over epochs, without validation."""
        return median(record["seconds"] for record in self.epochs)

    def without_times(self) -> dict[str, Any]:
        """All that equal seeds make equal."""
        records = [{"epoch": r["epoch"], "losses": r["losses"], "metrics": r["metrics"]} for r in self.epochs]
        return {"epochs": records, "best_epoch": self.best_epoch}


def improves(metrics: Mapping[str, float], best: Mapping[str, float] | None, monitor: str | None) -> bool:
    """Whether ``metrics`` beat the ``best`` so far (None: nothing yet); without ``monitor`` the latest is the best."""
    if monitor is None:
        return True
    if not metrics:
        return False
    if best is None:
        return True
    return metrics[monitor] < best[monitor] if monitor.startswith(LOWER_IS_BETTER) else metrics[monitor] > best[monitor]


def exhausted(epochs: Sequence[Epoch], best_epoch: int, patience: int | None) -> bool:
    """Whether ``patience`` validations have passed since the best epoch."""
    return patience is not None and sum(bool(record["metrics"]) for record in epochs[best_epoch:]) >= patience
